//! The whole program against a real broker: what was produced is what stands in the archive, to the record.
//!
//! [`traffic`] makes input of which every defect is known, [`job`] runs the `wattline` program as its users do,
//! [`oracle`] computes what the rules must have said with plain DataFusion over the raw table. The tests never look
//! inside the program: they read its tables, its alert topic, its messages and its exit status.

mod amendments;
mod avro;
mod backfill;
mod backup;
mod counts;
mod crash;
mod demo;
mod disk_full;
mod faults;
mod gaps;
mod inputs;
pub(crate) mod job;
mod late;
mod low_latency;
mod memory;
mod mistakes;
mod oracle;
mod own_functions;
mod reference;
mod references;
mod reload;
mod sample;
mod slots;
mod slots_apply;
mod slots_restore;
mod system_streams;
mod traffic;
mod upgrade;
mod verify;
