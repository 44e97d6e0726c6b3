//! Something between a client and the test broker that knows requests from each other.
//!
//! ```text
//! client ──▶ side door ──▶ proxy ──▶ broker        the broker names the side door as its address to all who come this way
//!        ◀──────────────────── answers ◀──         so no client finds a way around
//! ```
//! A frame is its length and its bytes. Those of a request begin with API key, version and correlation id, those of an answer with the
//! correlation id of its request. Requests of one API key can be lost, their answers lost or delayed, or all of them held back for a while;
//! everything else passes as it is, in its order. What is lost takes its connection with it, as TCP loses nothing otherwise.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Result as IoResult, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::kafka_broker::TestBroker;

/// The API key of a request that sends messages.
pub(crate) const PRODUCE: i16 = 0;
/// The API key of a request that commits a transaction or rolls it back.
pub(crate) const END_TXN: i16 = 26;

const LOOK_EVERY: Duration = Duration::from_millis(5);
/// More than any request of a test; a longer frame means that this is not the protocol.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It never arrives.
    RequestLost,
    /// It is carried out, and its answer never comes.
    AnswerLost,
    /// It is carried out, and its answer comes so much later.
    AnswerDelayed(Duration),
}

/// What happens to the requests of an API key, by their number from 1.
type Plan = Box<dyn Fn(u64) -> Option<Fault> + Send + Sync>;

/// A proxy at the side door of a broker; gone with all its connections on drop.
#[derive(Debug)]
pub(crate) struct KafkaProxy<'b> {
    state: Arc<State>,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
    /// Nobody else is at the door.
    _door: MutexGuard<'b, TcpListener>,
}

struct State {
    broker: SocketAddr,
    api_key: i16,
    plan: Plan,
    seen: AtomicU64,
    faults: AtomicU64,
    is_holding: AtomicBool,
    is_over: AtomicBool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("api_key", &self.api_key).field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl<'b> KafkaProxy<'b> {
    /// Stands at the side door from now on and does to requests of `api_key` what `plan` says; waits while another one is there.
    pub(crate) fn start(
        broker: &'b TestBroker,
        api_key: i16,
        plan: impl Fn(u64) -> Option<Fault> + Send + Sync + 'static,
    ) -> Result<Self> {
        let door = broker.side_door().lock().unwrap_or_else(PoisonError::into_inner);
        let listener = door.try_clone()?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            broker: broker.behind_side_door(),
            api_key,
            plan: Box::new(plan),
            seen: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            is_holding: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&state);
        let accepting = thread::Builder::new()
            .name("kafka-proxy".to_owned())
            .spawn(move || accept(&listener, &of_thread))
            .context("a thread for the proxy")?;
        Ok(Self { state, address, accepting: Some(accepting), _door: door })
    }

    /// The address for `bootstrap.servers`.
    pub(crate) fn bootstrap(&self) -> String {
        self.address.to_string()
    }

    /// Requests of the API key so far.
    pub(crate) fn seen(&self) -> u64 {
        self.state.seen.load(Ordering::SeqCst)
    }

    /// How many of them something happened to.
    pub(crate) fn faults(&self) -> u64 {
        self.state.faults.load(Ordering::SeqCst)
    }

    /// Holds requests of the API key back, or lets them pass again.
    pub(crate) fn hold(&self, is_holding: bool) {
        self.state.is_holding.store(is_holding, Ordering::SeqCst);
    }
}

impl Drop for KafkaProxy<'_> {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::SeqCst);
        if self.accepting.take().is_some_and(|thread| thread.join().is_err()) {
            eprintln!("the Kafka proxy panicked");
        }
    }
}

impl State {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// Waits until it is time or the proxy is at its end.
    fn wait_while(&self, waits: impl Fn() -> bool) {
        while waits() && !self.is_over() {
            thread::park_timeout(LOOK_EVERY);
        }
    }

    /// What happens to this request, after it was held back if it is to be.
    fn fault_of(&self, request: &[u8]) -> Option<Fault> {
        if api_key(request) != Some(self.api_key) {
            return None;
        }
        self.wait_while(|| self.is_holding.load(Ordering::SeqCst));
        let fault = (self.plan)(self.seen.fetch_add(1, Ordering::SeqCst) + 1);
        self.faults.fetch_add(u64::from(fault.is_some()), Ordering::SeqCst);
        fault
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    let mut connections: Vec<Connection> = Vec::new();
    while !state.is_over() {
        match listener.accept() {
            // A broker that is not there is as good as one that closes the connection.
            Ok((client, _)) => connections.extend(Connection::open(&client, state).ok()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::park_timeout(LOOK_EVERY),
            Err(error) => eprintln!("the Kafka proxy takes no connection: {error}"),
        }
        connections.retain(|connection| !connection.has_ended());
    }
}

/// Both ways of a connection, a thread each.
struct Connection {
    client: TcpStream,
    broker: TcpStream,
    ways: Vec<JoinHandle<()>>,
}

impl Connection {
    fn open(client: &TcpStream, state: &Arc<State>) -> IoResult<Self> {
        client.set_nonblocking(false)?;
        client.set_nodelay(true)?;
        let client = client.try_clone()?;
        let broker = TcpStream::connect(state.broker)?;
        broker.set_nodelay(true)?;
        let mut connection = Self { client, broker, ways: Vec::new() };
        let due = Arc::new(Mutex::new(HashMap::new()));
        let (client, broker, of_thread, faults) = connection.parts(state, &due)?;
        connection.start("to-broker", move || pass_requests(client, broker, &of_thread, &faults))?;
        let (client, broker, of_thread, faults) = connection.parts(state, &due)?;
        connection.start("to-client", move || pass_answers(client, broker, &of_thread, &faults))?;
        Ok(connection)
    }

    fn parts(&self, state: &Arc<State>, due: &Due) -> IoResult<(TcpStream, TcpStream, Arc<State>, Due)> {
        Ok((self.client.try_clone()?, self.broker.try_clone()?, Arc::clone(state), Arc::clone(due)))
    }

    fn start(&mut self, name: &str, pass: impl FnOnce() -> IoResult<()> + Send + 'static) -> IoResult<()> {
        let (client, broker) = (self.client.try_clone()?, self.broker.try_clone()?);
        let way = move || {
            // However it ended, both sides see the end of the connection.
            drop(pass());
            close(&client, &broker);
        };
        self.ways.push(thread::Builder::new().name(format!("kafka-proxy-{name}")).spawn(way)?);
        Ok(())
    }

    fn has_ended(&self) -> bool {
        self.ways.iter().all(JoinHandle::is_finished)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        close(&self.client, &self.broker);
        for way in self.ways.drain(..) {
            if way.join().is_err() {
                eprintln!("a connection of the Kafka proxy panicked");
            }
        }
    }
}

fn close(client: &TcpStream, broker: &TcpStream) {
    for side in [client, broker] {
        // It may be closed already.
        side.shutdown(Shutdown::Both).unwrap_or_default();
    }
}

/// What is to happen to answers, by correlation id.
type Due = Arc<Mutex<HashMap<i32, Fault>>>;

fn pass_requests(mut client: TcpStream, mut broker: TcpStream, state: &State, due: &Due) -> IoResult<()> {
    loop {
        let request = read_frame(&mut client)?;
        match (state.fault_of(&request), number_at(&request, 4).map(i32::from_be_bytes)) {
            (Some(Fault::RequestLost), _) => return Ok(()),
            (Some(fault), Some(correlation_id)) => {
                due.lock().unwrap_or_else(PoisonError::into_inner).insert(correlation_id, fault);
            }
            _ => {}
        }
        write_frame(&mut broker, &request)?;
    }
}

fn pass_answers(mut client: TcpStream, mut broker: TcpStream, state: &State, due: &Due) -> IoResult<()> {
    loop {
        let answer = read_frame(&mut broker)?;
        let correlation_id = number_at(&answer, 0).map(i32::from_be_bytes);
        let fault = correlation_id.and_then(|id| due.lock().unwrap_or_else(PoisonError::into_inner).remove(&id));
        match fault {
            Some(Fault::AnswerLost) => return Ok(()),
            Some(Fault::AnswerDelayed(delay)) => {
                let came = Instant::now();
                state.wait_while(|| came.elapsed() < delay);
            }
            Some(Fault::RequestLost) | None => {}
        }
        write_frame(&mut client, &answer)?;
    }
}

fn number_at<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    frame.get(at..at + N)?.try_into().ok()
}

fn api_key(request: &[u8]) -> Option<i16> {
    number_at(request, 0).map(i16::from_be_bytes)
}

fn read_frame(from: &mut impl Read) -> IoResult<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > FRAME_BYTES_MAX {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut frame = vec![0; length];
    from.read_exact(&mut frame)?;
    Ok(frame)
}

fn write_frame(to: &mut impl Write, frame: &[u8]) -> IoResult<()> {
    let length = i32::try_from(frame.len()).map_err(|_too_long| ErrorKind::InvalidData)?;
    to.write_all(&[&length.to_be_bytes()[..], frame].concat())
}

#[test]
fn frames_pass_whole_and_are_told_apart() -> Result<()> {
    let request = [&END_TXN.to_be_bytes()[..], &1_i16.to_be_bytes(), &77_i32.to_be_bytes(), b"rest"].concat();
    let mut wire = Vec::new();
    write_frame(&mut wire, &request)?;
    assert_eq!(wire.len(), request.len() + 4);
    let read = read_frame(&mut wire.as_slice())?;
    assert_eq!(read, request);
    assert_eq!((api_key(&read), number_at(&read, 4).map(i32::from_be_bytes)), (Some(END_TXN), Some(77)));
    assert!(read_frame(&mut &wire[..wire.len() - 1]).is_err(), "half a frame is none");
    assert_eq!(api_key(b"x"), None);
    Ok(())
}

#[test]
fn who_comes_through_the_side_door_stays_there() -> Result<()> {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    let proxy = KafkaProxy::start(TestBroker::shared(), END_TXN, |_| None)?;
    let client: BaseConsumer =
        TestBroker::shared().client_config().set("bootstrap.servers", proxy.bootstrap()).create()?;
    let metadata = client.fetch_metadata(None, Duration::from_secs(20))?;
    let brokers: Vec<String> =
        metadata.brokers().iter().map(|broker| format!("{}:{}", broker.host(), broker.port())).collect();
    assert_eq!(brokers, [proxy.bootstrap()]);
    Ok(())
}
