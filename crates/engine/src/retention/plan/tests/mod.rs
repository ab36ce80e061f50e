//! Tests of the plan: each rule by examples, thousands of random histories against a slow reference, nonsense, and a
//! cluster that is pruned for a year.

mod calendar;
mod hostile;
mod jump;
mod model;
mod reference;
mod reference_wal;
mod repo;
mod rules;
mod simulation;
mod systems;
mod wal;
mod world;
