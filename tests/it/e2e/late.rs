//! Events beyond the delay of a rule: ignored and kept, or taken into results that were out, with alerts that follow.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wattline_connect::kafka::admin::{KeyedMessage, Producer};

use super::job::{JobFolder, VISITS};
use crate::child_process::wait_until;
use crate::kafka_broker::TestBroker;

const RUN_LIMIT: Duration = Duration::from_secs(120);
const MOMENT_LIMIT: Duration = Duration::from_secs(60);
const FLUSH_LIMIT: Duration = Duration::from_secs(20);

const SHOPS: u32 = 8;

const HOURLY: &str = "/*---
id = \"hourly\"
kind = \"table\"
delay = \"1 minute\"
late = \"update\"
---*/
SELECT shop, window_start, window_end, count(*) AS visits, sum(amount) AS total, avg(CAST(amount AS DOUBLE)) AS mean
FROM TUMBLE(visits, at, INTERVAL '1 hour') GROUP BY shop, window_start, window_end
";

const UNCORRECTED: &str = "/*---
id = \"first_answer\"
kind = \"table\"
delay = \"1 minute\"
---*/
SELECT shop, window_start, window_end, count(*) AS visits
FROM TUMBLE(visits, at, INTERVAL '1 hour') GROUP BY shop, window_start, window_end
";

const BUSY: &str = "/*---
id = \"busy\"
kind = \"alert\"
entity = \"shop\"
delay = \"1 minute\"
late = \"update\"
---*/
SELECT shop, window_start, window_end, count(*) > 2 AS firing, count(*) AS measured
FROM TUMBLE(visits, at, INTERVAL '1 hour') GROUP BY shop, window_start, window_end
";

fn visit(shop: &str, hour: u32, minute: u32, amount: &str) -> String {
    format!("{{\"shop\":\"{shop}\",\"at\":\"2026-03-02T{hour:02}:{minute:02}:00Z\",\"amount\":\"{amount}\"}}")
}

fn configure(folder: &JobFolder, source: &str, more: &str) -> Result<()> {
    folder.write("visits.avsc", VISITS)?;
    for (name, text) in [("hourly", HOURLY), ("first_answer", UNCORRECTED), ("busy", BUSY)] {
        folder.write(&format!("sql/{name}.sql"), text)?;
    }
    folder.write(
        "wattline.toml",
        &format!(
            "job = \"late\"\n{more}\n[streams.visits]\nschema = \"visits.avsc\"\n{source}\n[rules]\npaths = [\"sql\"]\n\
             [archive]\nurl = \"archive\"\n"
        ),
    )
}

/// What the corrected results must be: the same query over all events, late or not.
fn corrected_results_are_those_of_all_events(folder: &JobFolder) -> Result<()> {
    let expected = folder.query(
        "SELECT shop, window_start, count(*) AS visits, sum(amount) AS total, avg(CAST(amount AS DOUBLE)) AS mean \
         FROM TUMBLE(visits, at, INTERVAL '1 hour') GROUP BY shop, window_start, window_end ORDER BY 1, 2",
    )?;
    let current = folder
        .query("SELECT shop, window_start, visits, total, mean FROM hourly_current ORDER BY shop, window_start")?;
    assert_eq!(current, expected);
    Ok(())
}

#[test]
fn late_events_correct_results_and_alerts_that_were_out() -> Result<()> {
    let folder = JobFolder::new("late")?;
    let lines = [
        visit("north", 8, 0, "1.50"),
        visit("north", 8, 10, "2.50"),
        visit("south", 8, 20, "7.00"),
        visit("north", 11, 0, "1.00"),
        // Two hours and more behind: a third visit of an hour that was told, and an hour that nobody had seen.
        visit("north", 8, 40, "5.00"),
        visit("south", 9, 5, "4.00"),
        visit("south", 11, 30, "3.00"),
    ];
    folder.write("in/a.ndjson", &lines.join("\n"))?;
    configure(&folder, "files = \"in/*\"", "")?;
    folder.answer(&["check"])?;
    let explained = folder.answer(&["explain", "hourly"])?;
    assert!(explained.contains("late       events beyond the delay correct results"), "{explained}");
    folder.run_until_end(RUN_LIMIT)?;

    corrected_results_are_those_of_all_events(&folder)?;
    let changes = folder.lines(
        "SELECT shop, visits, _change, _revision FROM hourly WHERE _revision > 1 ORDER BY shop, visits, _change",
    )?;
    assert_eq!(
        changes,
        [
            r#"{"_change":"retract","_revision":2,"shop":"north","visits":2}"#,
            r#"{"_change":"insert","_revision":2,"shop":"north","visits":3}"#,
            r#"{"_change":"insert","_revision":2,"shop":"south","visits":1}"#,
        ]
    );
    assert_eq!(folder.count("SELECT count(*) AS n FROM hourly WHERE _change = 'insert' AND _revision = 1")?, 4);
    assert_eq!(
        folder.count("SELECT sum(visits) AS n FROM first_answer")?,
        5,
        "the rule without `late` keeps its answer"
    );
    let alerts = folder.query("SELECT entity_id, status, explanation FROM alerts ORDER BY revision")?;
    // The hour of three visits is over and a calmer one came after it: it is told with its end.
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!((&alerts[0]["entity_id"], &alerts[0]["status"]), (&"north".into(), &"resolved".into()));
    let explanation = alerts[0]["explanation"].as_str().context("an explanation")?;
    assert!(explanation.contains("corrected by late events"), "{explanation}");
    Ok(())
}

#[test]
fn corrections_go_on_through_a_kill_on_the_real_broker() -> Result<()> {
    let broker = TestBroker::shared();
    let topic = "late-visits";
    broker.create_topic(topic, 2, &[])?;
    let mut producer = Producer::connect(&broker.bootstrap(), &Default::default())?;
    let mut produce = |(shops, hour): (u32, u32), visits: u32| -> Result<()> {
        for (shop, k) in (0..shops).flat_map(|shop| (0..visits).map(move |k| (shop, k))) {
            let shop = format!("s{shop}");
            let (key, payload) = (shop.as_bytes(), visit(&shop, hour, 7 * k, "1.25"));
            producer.send(&KeyedMessage { topic, key, payload: payload.as_bytes(), timestamp_ms: None })?;
        }
        Ok(producer.flush(FLUSH_LIMIT)?)
    };
    let folder = JobFolder::new("late-kill")?;
    let kafka = format!(
        "[kafka]\nbootstrap_servers = \"{}\"\n[run]\ntick = \"100 ms\"\ncheckpoint = \"300 ms\"\ncorrection = \"300 ms\"\nfile_age = \"300 ms\"",
        broker.bootstrap()
    );
    configure(&folder, &format!("topic = \"{topic}\"\nidle_timeout = \"300 ms\""), &kafka)?;

    produce((SHOPS, 1), 2)?;
    produce((SHOPS, 3), 1)?;
    let running = folder.start(&["run"])?;
    let newest = || -> Result<u64> {
        // The table is there from the first start on.
        let rows = folder.query("SELECT coalesce(max(_revision), 0) AS n FROM hourly").unwrap_or_default();
        Ok(rows.first().and_then(|row| row["n"].as_u64()).unwrap_or(0))
    };
    let reaches = |revision: u64| wait_until(MOMENT_LIMIT, || Ok((newest()? >= revision).then_some(())));
    reaches(1).context("the first results")?;
    produce((SHOPS, 1), 3)?;
    reaches(2).context("the first correction, while the job runs")?;
    drop(running);
    produce((SHOPS, 0), 1)?;
    produce((SHOPS, 1), 1)?;
    let running = folder.start(&["run"])?;
    reaches(3).context("a correction after the kill")?;
    drop(running);
    produce((SHOPS, 5), 1)?;
    produce((SHOPS, 3), 4)?;
    folder.run_until_end(RUN_LIMIT)?;

    corrected_results_are_those_of_all_events(&folder)?;
    let expected = (2 + 1 + 3 + 1 + 1 + 1 + 4) * u64::from(SHOPS);
    assert_eq!(folder.count("SELECT sum(visits) AS n FROM hourly_current")?, expected);
    ensure!(folder.count("SELECT count(*) AS n FROM visits WHERE _lateness_ms > 60000")? > 0, "nothing was late");
    let twice = "SELECT count(*) AS n FROM (SELECT alert_id FROM alerts GROUP BY alert_id HAVING count(*) > 1)";
    assert_eq!(folder.count(twice)?, 0);
    // Hour 5 has one visit of each shop, so no alert is open in the end.
    let open = "SELECT count(*) AS n FROM (SELECT status, row_number() OVER (PARTITION BY fingerprint ORDER BY revision \
                DESC) AS n FROM alerts) WHERE n = 1 AND status <> 'resolved'";
    assert_eq!(folder.count(open)?, 0);
    ensure!(folder.count("SELECT count(*) AS n FROM alerts WHERE rule_id = 'busy'")? > 0, "no alert was told");
    Ok(())
}
