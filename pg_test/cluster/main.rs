//! Tests with servers of their own: backup, loss, restore. They need pg_ark installed into the server that they use
//! (`scripts/install`; `PG_CONFIG` chooses another), and link neither the extension nor the engine.
//!
//! * [`support`]: the steps that tests share.
//! * [`sixty_days`]: a server that is left alone. * [`retention`]: promise 4. * [`scheduled`]: steps with a clock.
//! * [`failover`]: who acts, before and after a promotion.
//! * [`full_backup`]: promise 1, a complete backup is restorable.
//! * [`full_repository`]: a repository on a full disk can be pruned.
//! * [`by_hand`]: the same with public tools alone.
//! * [`interrupts`]: what ends a backup, and what does not.
//! * [`killed`]: engines that die, disks that fill up, repositories that vanish.
//! * [`logical_backup`]: dumps, asked for in SQL: what they take and refuse, and what is left of those that are stopped.
//! * [`layouts`]: every layout of a data directory. * [`load`]: backups while everything is written, created, dropped.
//! * [`logical_round_trip`]: everything that a dump can hold comes back; [`logical_world`] is that everything.
//! * [`large`]: many tables, a large one, many files, little memory. * [`standby`]: backups of standbys.
//! * [`logical_into`]: logical backups, or parts of them, into a running server.
//! * [`logical_dump`]: logical backups: what is stored, and what cannot be. [`logical_meanwhile`]: and what others do meanwhile.
//! * [`logical_meaning`]: settings that would change what a dump means.
//! * [`logical_verify`]: damaged dumps are named, and disturb no physical backup.
//! * [`damage`]: promise 6, every object of a repository damaged in every way.
//! * [`debian`]: clusters of pg_createcluster. * [`restore`]: what `pgark restore` refuses, and what it says.
//! * [`archive_view`]: promise 6, damage is loud: what is said about an archive.
//! * [`archiver`]: promise 2, archived means stored. * [`archived_backups`]: backups without WAL of their own.
//! * [`archiving`]: steps of tests whose servers archive. * [`recovery_cases`]: what PostgreSQL's own recovery tests hold.
//! * [`manners`]: what a backup leaves to others.
//! * [`moments`]: archive, backup, loss, and back to a moment, on every version.
//! * [`targets`]: recovery to a moment: it lands there, or is refused before anything is written.
//! * [`two_servers`]: one repository, two servers, one lease.
//! * [`encodings`]: databases whose encoding is not UTF-8.
//! * [`old_wal`]: WAL that was not archived when the server died.
//! * [`private_files`]: nothing that pg_ark writes or holds is for others.
//! * [`protect`]: one call sets a server up to be left alone; the schedule in dumps and on standbys.
//! * [`promises`]: the promises that are named in the design.
//! * [`scheduler`]: the server backs itself up, and says once what keeps it from that.
//! * [`same_name`]: two servers that share a cluster's name by mistake.
//! * [`security`]: who can see what, and whose code runs.
//! * [`sessions`]: what the settings of a session, a role or a database cannot change.
//! * [`verifybackup`]: what PostgreSQL's tests of pg_verifybackup hold, against stored backups.
//! * [`wal_get`]: promise 3, absent means proven absent.
//! * [`torture`]: kill -9 at random moments, of everything. * [`power_loss`]: what was told to be durable is.
//! * [`io_faults`]: disks that are full or fail.
//! * [`source_damage`]: promise 6, damage is loud: pages that are corrupt before they are backed up.
//! * [`metrics`]: what is said about a server that backs itself up.
//! * [`upgrade`]: library, engine and SQL of different versions.
//! * [`validate`]: what is wrong with stored backups, asked by SQL.
//! * [`waiting`]: what a caller that waits hears.
//! * [`refusals`]: what bad input gets.

mod archive_view;
mod archived_backups;
mod archiver;
mod archiving;
mod by_hand;
mod damage;
mod debian;
mod encodings;
mod failover;
mod full_backup;
mod full_repository;
mod interrupts;
mod io_faults;
mod killed;
mod large;
mod layouts;
mod load;
mod logical_backup;
mod logical_dump;
mod logical_into;
mod logical_meaning;
mod logical_meanwhile;
mod logical_restore;
mod logical_round_trip;
mod logical_verify;
mod logical_world;
mod manners;
mod metrics;
mod moments;
mod old_wal;
mod power_loss;
mod private_files;
mod promises;
mod protect;
mod recovery_cases;
mod refusals;
mod restore;
mod retention;
mod same_name;
mod scheduled;
mod scheduler;
mod security;
mod sessions;
mod sixty_days;
mod source_damage;
mod standby;
mod support;
mod targets;
mod torture;
mod two_servers;
mod upgrade;
mod validate;
mod verifybackup;
mod waiting;
mod wal_get;
