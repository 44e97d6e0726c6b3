//! A real Apache Kafka broker, one KRaft node, as a child of the test process.
//!
//! A mock would prove nothing here: librdkafka's own keeps 5 MiB a partition, never hides aborted records and never fences.
//! The jars are those of `tests/kafka/pom.xml`, copied by `scripts/test setup` into `target/kafka-libs`. Each broker has its own folder and
//! its own free ports on the loopback address, and keeps both over [`TestBroker::kill9`] and [`TestBroker::restart`], so clients
//! find it again. A broker has a side door besides: who comes through it is told to find the broker there, so that a test can
//! put something between ([`crate::kafka_proxy`]). One broker is shared by all tests that only read and write ([`TestBroker::shared`]); a test that kills one
//! starts its own.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::child_process::{ChildProcess, wait_until};
use crate::scratch::Scratch;
use crate::tree;

const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const REQUEST_LIMIT: Duration = Duration::from_secs(20);
/// Another program may take a port between its choice and the broker's bind; then the start is tried on new ones.
const START_TRIES: usize = 3;
const PORT_TAKEN: &str = "Address already in use";
const CLUSTER_ID: &str = "d2F0dGxpbmUtdGVzdHMtMQ";

/// The smallest heap that takes some million records without long pauses.
const JVM_OPTIONS: [&str; 4] =
    ["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"];

/// One broker; its process is killed and its data removed on drop.
#[derive(Debug)]
pub(crate) struct TestBroker {
    scratch: Scratch,
    port: u16,
    /// What is behind the side door.
    side_port: u16,
    /// Open from the start, so that nobody else has its port; nobody answers there without a proxy.
    side_door: Mutex<TcpListener>,
    process: Option<ChildProcess>,
}

impl TestBroker {
    /// The broker that all tests of this binary share.
    ///
    /// # Panics
    /// If it cannot be started: a test without its broker is red, not skipped.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<TestBroker> = OnceLock::new();
        SHARED.get_or_init(|| match Self::start() {
            Ok(broker) => broker,
            Err(error) => panic!("the shared Kafka broker does not start: {error:#}"),
        })
    }

    /// Formats a new folder, starts a broker on it and waits until it answers.
    ///
    /// # Errors
    /// With the end of the broker's log if it ends or does not answer within two minutes.
    pub(crate) fn start() -> Result<Self> {
        for _ in 0..START_TRIES {
            let [port, side_port, controller_port] = free_ports()?;
            let side_door = TcpListener::bind(("127.0.0.1", 0)).context("no free port on 127.0.0.1")?;
            let scratch = Scratch::new("kafka")?;
            let mut broker = Self { scratch, port, side_port, side_door: Mutex::new(side_door), process: None };
            broker.format(controller_port)?;
            match broker.restart() {
                Ok(()) => return Ok(broker),
                Err(error) if format!("{error:#}").contains(PORT_TAKEN) => {}
                Err(error) => return Err(error),
            }
        }
        bail!("no free port for the Kafka broker after {START_TRIES} tries")
    }

    /// The address for `bootstrap.servers`; the same over restarts.
    pub(crate) fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The listener at which clients look for the broker that came through it, for one at a time.
    pub(crate) fn side_door(&self) -> &Mutex<TcpListener> {
        &self.side_door
    }

    /// Where what comes through the side door is to go.
    pub(crate) fn behind_side_door(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.side_port))
    }

    /// A client configuration that names this broker.
    pub(crate) fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap());
        config
    }

    /// Creates a topic with `partitions` partitions; `settings` are topic settings such as `("retention.ms", "-1")`.
    pub(crate) fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client_config().create()?;
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_LIMIT)).request_timeout(Some(REQUEST_LIMIT));
        let results = futures::executor::block_on(admin.create_topics([&topic], &options))
            .with_context(|| format!("cannot create topic `{name}`"))?;
        for result in results {
            result.map_err(|(topic, code)| anyhow!("cannot create topic `{topic}`: {code}"))?;
        }
        Ok(())
    }

    /// Deletes the records of a partition before an offset, as retention does.
    pub(crate) fn delete_records(&self, topic: &str, partition: i32, before: i64) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client_config().create()?;
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(before))?;
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_LIMIT)).request_timeout(Some(REQUEST_LIMIT));
        let left = futures::executor::block_on(admin.delete_records(&offsets, &options))
            .with_context(|| format!("cannot delete records of `{topic}`"))?;
        left.elements().iter().try_for_each(|element| element.error()).context("records were not deleted")?;
        Ok(())
    }

    /// Deletes a topic and makes it again under the same name.
    pub(crate) fn create_topic_anew(&self, name: &str, partitions: i32) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client_config().create()?;
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_LIMIT)).request_timeout(Some(REQUEST_LIMIT));
        let results = futures::executor::block_on(admin.delete_topics(&[name], &options))?;
        for result in results {
            result.map_err(|(topic, code)| anyhow!("cannot delete topic `{topic}`: {code}"))?;
        }
        // Until it is gone, its name is taken.
        wait_until(REQUEST_LIMIT, || Ok(self.create_topic(name, partitions, &[]).ok()))
    }

    /// Ends the broker by SIGKILL.
    pub(crate) fn kill9(&mut self) -> Result<()> {
        self.process.take().context("the broker is not running")?.kill9()
    }

    /// Ends the broker by SIGTERM and waits for its orderly end.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.process.take().context("the broker is not running")?.terminate(STOP_LIMIT).map(|_| ())
    }

    /// Starts the broker again on its folder and its port, and waits until it answers.
    pub(crate) fn restart(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the broker is still running");
        let mut args: Vec<String> = JVM_OPTIONS.map(str::to_owned).to_vec();
        args.extend(["-cp".to_owned(), class_path()?, "kafka.Kafka".to_owned(), "server.properties".to_owned()]);
        let log = self.scratch.join("broker.log");
        let mut process = ChildProcess::start(Path::new("java"), &args, self.scratch.path(), &log)?;
        let probe: BaseConsumer = self.client_config().create()?;
        wait_until(START_LIMIT, || {
            if let Some(status) = process.try_wait()? {
                bail!("the broker ended with {status}");
            }
            let answer = probe.fetch_metadata(None, Duration::from_millis(500));
            Ok(answer.is_ok_and(|metadata| !metadata.brokers().is_empty()).then_some(()))
        })
        .with_context(|| {
            format!("no answer from Kafka at {}; its log ends with\n{}", self.bootstrap(), process.log_tail())
        })?;
        self.process = Some(process);
        Ok(())
    }

    fn format(&self, controller_port: u16) -> Result<()> {
        let properties = self.scratch.join("server.properties");
        let side_door = self.side_door.lock().unwrap_or_else(PoisonError::into_inner).local_addr()?.port();
        let ports = Ports { broker: self.port, side: self.side_port, side_door, controller: controller_port };
        fs::write(&properties, server_properties(&ports, &self.scratch.join("log")))?;
        let output = Command::new("java")
            .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", &class_path()?])
            .args(["kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER_ID, "--config"])
            .arg(&properties)
            .output()
            .context("cannot run `java`; run `scripts/test setup`")?;
        ensure!(
            output.status.success(),
            "Kafka cannot format its folder: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        Ok(())
    }
}

/// The ports of a broker.
struct Ports {
    broker: u16,
    side: u16,
    side_door: u16,
    controller: u16,
}

/// One replica of everything, few partitions for the internal topics, and nothing removed by age: test events are years old. Members
/// of groups by the newer protocol, whose times are the broker's to say, are missed as soon as those of tests by the classic one.
fn server_properties(ports: &Ports, log: &Path) -> String {
    let Ports { broker, side, side_door, controller } = ports;
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{broker},SIDE://127.0.0.1:{side},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker},SIDE://127.0.0.1:{side_door}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SIDE:PLAINTEXT
log.dirs={log}
log.retention.ms=-1
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.consumer.min.session.timeout.ms=6000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=1000
group.consumer.heartbeat.interval.ms=1000
",
        log = log.display(),
    )
}

fn class_path() -> Result<String> {
    let jars = tree::target_folder()?.join("kafka-libs");
    let found = fs::read_dir(&jars).is_ok_and(|mut entries| entries.next().is_some());
    ensure!(found, "Kafka's jars are not in `{}`; run `scripts/test setup`", jars.display());
    Ok(jars.join("*").display().to_string())
}

/// Ports that were free a moment ago, all different.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut listeners = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port on 127.0.0.1")?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}
