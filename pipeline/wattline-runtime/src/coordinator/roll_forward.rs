//! After the commit point: everything a link promises is brought out, idempotently.
//!
//! Delta commits carry (chain, n) as their transaction; the alert topic remembers a marker with `n`. A process
//! that starts after a crash calls the same function for the last epoch and cannot do harm by doing it again.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;
use wattline_core::alert::AlertRecord;
use wattline_core::chain::are_alerts_out;
use wattline_core::manifest::{Epoch, Manifest};
use wattline_core::record::LaneId;

use super::Coordinator;
use super::early::not_told;
use crate::error::Result;
use crate::events;
use crate::intake_thread::SourceCommand;
use crate::retry::until_done;

impl Coordinator {
    /// Brings out what epoch `n` promises. `tried` says that its alerts may be out already; those with the ids of `told_early` are.
    pub(super) async fn roll_forward(
        &mut self,
        n: u64,
        epoch: &Epoch,
        told_early: &BTreeSet<String>,
        mut tried: bool,
    ) -> Result<()> {
        if let Some(path) = &epoch.rows_object
            && !self.rows_objects.contains(path)
        {
            self.rows_objects.push(path.clone());
        }
        let app_id = self.chain.app_id();
        for (table, files) in epoch.adds.iter().filter(|(_, files)| !files.is_empty()) {
            until_done(&format!("committing to table `{table}`"), &self.progress, || {
                self.archive.commit(table, files, &app_id, n)
            })
            .await?;
        }
        if let Some(sink) = self.alert_sink.clone().filter(|_| !epoch.alerts.is_empty()) {
            let marker = self.chain.marker(n);
            // Even if none is left: the marker says of all of them that they are out.
            let left = not_told(&epoch.alerts, told_early);
            let alerts: &[AlertRecord] = &left;
            let (sink, marker) = (sink.as_ref(), marker.as_str());
            until_done("publishing alerts", &self.progress, || {
                let ask_first = std::mem::replace(&mut tried, true);
                async move {
                    if ask_first && are_alerts_out(sink.last_marker().await?.as_deref(), marker) {
                        return Ok(());
                    }
                    sink.publish(alerts, marker, n).await
                }
            })
            .await?;
        }
        self.send_outbox(epoch).await?;
        self.report_published(epoch);
        Ok(())
    }

    /// Brings out what the last epoch before a start promised, as far as it is not out yet.
    pub(super) async fn roll_forward_past(&mut self, manifest: &Manifest) -> Result<()> {
        match manifest.epoch() {
            Some(epoch) => self.roll_forward(manifest.n, epoch, &BTreeSet::new(), true).await,
            None => Ok(()),
        }
    }

    fn report_published(&self, epoch: &Epoch) {
        let mut by_source: BTreeMap<usize, Vec<(LaneId, i64)>> = BTreeMap::new();
        for section in &epoch.lanes {
            if let Some(status) = self.lanes.get(&section.lane) {
                by_source.entry(status.source).or_default().push((section.lane.clone(), section.published));
            }
        }
        for (source, positions) in by_source {
            if let Some(commands) = self.source_commands.get(source) {
                // Advisory: a source that has ended needs no telling.
                commands.try_send(SourceCommand::Published(positions)).unwrap_or_default();
            }
        }
    }

    /// Of several slots the first one does.
    pub(super) fn looks_after_tables(&self) -> bool {
        self.exchange.as_ref().is_none_or(|exchange| exchange.slot() == 0)
    }

    /// Starts the background work on the tables, unless it is running or not yet due.
    pub(super) fn start_maintenance(&mut self) {
        if !self.looks_after_tables() {
            return;
        }
        let running = self.maintenance.as_ref().is_some_and(|task| !task.is_finished());
        if running || self.last_maintenance.elapsed() < self.settings.maintenance {
            return;
        }
        self.last_maintenance = Instant::now();
        let (archive, tables) = (self.archive.clone(), self.table_names());
        self.maintenance = Some(tokio::spawn(async move {
            for table in tables {
                if let Err(error) = archive.maintain(&table).await {
                    events::MaintenanceFailed { table: &table, error: &error }.emit();
                }
            }
        }));
    }

    /// Compacts and cleans every table once; at the end of bounded input.
    pub(super) async fn maintain_all(&self) {
        if !self.looks_after_tables() {
            return;
        }
        for table in self.table_names() {
            if let Err(error) = self.archive.maintain(&table).await {
                events::MaintenanceFailed { table: &table, error: &error }.emit();
            }
        }
    }

    fn table_names(&self) -> Vec<String> {
        let streams = self.streams.iter().filter_map(|stream| stream.table.as_ref());
        let rules = self.rules.iter().filter_map(|rule| rule.table.as_ref());
        let system = crate::table::system_tables();
        streams.chain(rules).chain(&system).map(|spec| spec.name.clone()).collect()
    }
}
