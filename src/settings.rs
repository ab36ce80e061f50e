//! Every `pg_ark.*` setting of the server, defined from the contract's catalogue
//! ([`pg_ark_contract::settings::CATALOGUE`]: names, defaults, when a change acts, help and reasons).
//!
//! `repository`, `cluster`, `database` and `engine_path` are for the server's configuration alone. A session that
//! names one of them before it loads the library (PGOPTIONS, SET, ALTER ROLE SET) loses the configured value: the
//! server refuses the session's with a WARNING and keeps the default. [`check_source`] finds that; workers are not
//! concerned, they begin with the configuration's values.
//!
//! Readers of this module take the variables directly, not through SQL, so that functions granted to `pg_monitor`
//! see settings that only superusers may show.

use crate::postgres::{guc, process};
use pg_ark_contract::retention::Policy;
use pg_ark_contract::schedule::MissedRuns;
use pg_ark_contract::settings::{
    ARCHIVE_WAIT_DEFAULT, ARCHIVE_WAIT_MAX, CATALOGUE, Checksum, Compression, Context, JOBS_MAX,
    RETENTION_COUNT_MAX, RETENTION_WINDOW_DEFAULT, RETENTION_WINDOW_MAX, RunOn, Setting,
    VOLUME_SIZE_DEFAULT_KB, VOLUME_SIZE_MIN, cluster_from_name,
};
use pg_ark_contract::{Error, ErrorKind, Result};
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

type Text = GucSetting<Option<CString>>;

static REPOSITORY: Text = Text::new(Some(c""));
static CLUSTER: Text = Text::new(Some(c""));
static DATABASE: Text = Text::new(Some(c"postgres"));
static ENGINE_PATH: Text = Text::new(Some(c""));
static COMPRESSION: Text = Text::new(Some(c"zstd:1"));
static CHECKSUM: Text = Text::new(Some(c"crc32c"));
static JOBS: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_RATE: GucSetting<i32> = GucSetting::<i32>::new(0);
static VOLUME_SIZE: GucSetting<i32> = GucSetting::<i32>::new(VOLUME_SIZE_DEFAULT_KB as i32);

static RUN_ON: Text = Text::new(Some(c"primary"));
static MISSED_RUNS: Text = Text::new(Some(c"once"));
static TIMEZONE: Text = Text::new(Some(c"UTC"));
static RETENTION_WINDOW: GucSetting<i32> = GucSetting::<i32>::new(RETENTION_WINDOW_DEFAULT);
static RETENTION_MIN_FULL: GucSetting<i32> = GucSetting::<i32>::new(2);
static RETENTION_DAILY: GucSetting<i32> = GucSetting::<i32>::new(0);
static RETENTION_WEEKLY: GucSetting<i32> = GucSetting::<i32>::new(0);
static RETENTION_MONTHLY: GucSetting<i32> = GucSetting::<i32>::new(0);
static RETENTION_YEARLY: GucSetting<i32> = GucSetting::<i32>::new(0);
static ARCHIVE_WAIT: GucSetting<i32> = GucSetting::<i32>::new(ARCHIVE_WAIT_DEFAULT);

/// Name of this library in settings of the server.
pub const LIBRARY: &str = "pg_ark";

const KB: u64 = 1024;
/// `pg_ark.volume_size` is an int GUC in kB, so this is its end of the range.
const VOLUME_SIZE_MIN_KB: i32 = (VOLUME_SIZE_MIN / KB) as i32;

/// Which settings had a value before they were defined and have the default now: a bit for each of the catalogue.
static LOST: AtomicU32 = AtomicU32::new(0);

/// The postmaster loaded the library: every session knows the settings from its beginning.
static PRELOADED: AtomicBool = AtomicBool::new(false);

/// The file that ALTER SYSTEM writes (`PG_AUTOCONF_FILENAME`, utils/guc.h).
const AUTO_CONF: &str = "postgresql.auto.conf";
/// Bytes that are read of it.
const AUTO_CONF_MAX: u64 = 1 << 20;

/// Defines every setting of the catalogue; called once per process.
pub fn define() {
    PRELOADED.store(process::is_preloading(), Ordering::Relaxed);
    for (number, setting) in CATALOGUE.iter().enumerate() {
        let name = keep(setting.name);
        let had_value = guc::option(name).is_some();
        define_one(setting);
        if had_value && setting.context == Context::Sighup && guc::has_default(name) {
            LOST.fetch_or(1 << number, Ordering::Relaxed);
        }
    }
    guc::reserve_prefix(c"pg_ark");
}

/// True when the library is in `shared_preload_libraries`. It stays the one that was installed when the server started.
pub fn is_preloaded() -> bool {
    PRELOADED.load(Ordering::Relaxed)
}

/// What to do so that no session can show what is for superusers alone; none when none can. Before the library is
/// loaded, the server takes a setting of ours for one that it does not know, and shows its value to everyone.
pub fn left_open() -> Option<String> {
    let preloads = |name| guc::option(name).unwrap_or_default();
    let secret = value(&REPOSITORY).or_else(|| value(&ENGINE_PATH));
    let sessions = preloads(c"session_preload_libraries");
    if secret.is_none() || is_preloaded() || sessions.split(',').any(is_our_library) {
        return None;
    }
    let others = preloads(c"shared_preload_libraries");
    let list = if others.is_empty() { LIBRARY.into() } else { format!("{others}, {LIBRARY}") };
    Some(format!("ALTER SYSTEM SET shared_preload_libraries = {list}, then restart the server."))
}

/// The library may be named with its folder or with its suffix (`expand_dynamic_library_name`, utils/fmgr/dfmgr.c).
pub fn is_our_library(named: &str) -> bool {
    let name = named.trim().trim_matches('"').rsplit('/').next().unwrap_or_default();
    name.strip_suffix(".so").unwrap_or(name) == LIBRARY
}

/// Refuses to go on with a default in place of what the server's configuration may say.
///
/// # Errors
/// `InvalidArgument` when the session brought a value of its own for a setting of the server.
pub fn check_source() -> Result<()> {
    let lost = LOST.load(Ordering::Relaxed);
    let overridden = CATALOGUE.iter().enumerate().find(|(number, setting)| {
        // A reload has brought the value back.
        lost & (1 << number) != 0 && guc::has_default(&CString::new(setting.name).unwrap_or_default())
    });
    let Some((_, setting)) = overridden else { return Ok(()) };
    Err(Error::new(ErrorKind::InvalidArgument, format!("\"{}\" cannot be set by a session", setting.name))
        .detail("The value in the server's configuration is hidden from this session.")
        .hint("Remove the setting from PGOPTIONS, ALTER ROLE and ALTER DATABASE, then reconnect."))
}

fn define_one(setting: &'static Setting) {
    let secret = GucFlags::SUPERUSER_ONLY;
    match setting.name {
        "pg_ark.repository" => text(setting, &REPOSITORY, secret),
        "pg_ark.cluster" => text(setting, &CLUSTER, GucFlags::empty()),
        "pg_ark.database" => text(setting, &DATABASE, GucFlags::empty()),
        "pg_ark.engine_path" => text(setting, &ENGINE_PATH, secret),
        "pg_ark.compression" => {
            guc::define_checked(names(setting), &COMPRESSION, context(setting), guc::check_compression);
        }
        "pg_ark.checksum" => {
            guc::define_checked(names(setting), &CHECKSUM, context(setting), guc::check_checksum);
        }
        "pg_ark.jobs" => int(setting, &JOBS, 0..=JOBS_MAX, GucFlags::empty()),
        "pg_ark.max_rate" => int(setting, &MAX_RATE, 0..=i32::MAX, GucFlags::UNIT_KB),
        "pg_ark.archive_wait" => int(setting, &ARCHIVE_WAIT, 1..=ARCHIVE_WAIT_MAX, GucFlags::UNIT_S),
        "pg_ark.volume_size" => int(setting, &VOLUME_SIZE, VOLUME_SIZE_MIN_KB..=i32::MAX, GucFlags::UNIT_KB),
        "pg_ark.run_on" => guc::define_checked(names(setting), &RUN_ON, context(setting), guc::check_run_on),
        "pg_ark.missed_runs" => {
            guc::define_checked(names(setting), &MISSED_RUNS, context(setting), guc::check_missed_runs);
        }
        "pg_ark.timezone" => text(setting, &TIMEZONE, GucFlags::empty()),
        "pg_ark.retention_window" => {
            int(setting, &RETENTION_WINDOW, 0..=RETENTION_WINDOW_MAX, GucFlags::UNIT_MIN);
        }
        "pg_ark.retention_min_full" => count(setting, &RETENTION_MIN_FULL, 1),
        "pg_ark.retention_daily" => count(setting, &RETENTION_DAILY, 0),
        "pg_ark.retention_weekly" => count(setting, &RETENTION_WEEKLY, 0),
        "pg_ark.retention_monthly" => count(setting, &RETENTION_MONTHLY, 0),
        "pg_ark.retention_yearly" => count(setting, &RETENTION_YEARLY, 0),
        // A setting that the contract knows and this library does not: the test of the catalogue finds it.
        _ => {}
    }
}

fn text(setting: &'static Setting, variable: &'static Text, flags: GucFlags) {
    let (name, help, why) = names(setting);
    GucRegistry::define_string_guc(name, help, why, variable, context(setting), flags);
}

fn int(
    setting: &'static Setting,
    variable: &'static GucSetting<i32>,
    range: std::ops::RangeInclusive<i32>,
    flags: GucFlags,
) {
    let (name, help, why) = names(setting);
    let (min, max) = (*range.start(), *range.end());
    GucRegistry::define_int_guc(name, help, why, variable, min, max, context(setting), flags);
}

/// A number of backups or of periods.
fn count(setting: &'static Setting, variable: &'static GucSetting<i32>, min: i32) {
    int(setting, variable, min..=RETENTION_COUNT_MAX, GucFlags::empty());
}

fn context(setting: &Setting) -> GucContext {
    match setting.context {
        Context::Sighup => GucContext::Sighup,
        Context::Suset => GucContext::Suset,
    }
}

/// Name, help and reason as the server keeps them: for the life of the process.
fn names(setting: &'static Setting) -> (&'static CStr, &'static CStr, &'static CStr) {
    (keep(setting.name), keep(setting.help), keep(setting.why))
}

fn keep(text: &str) -> &'static CStr {
    match CString::new(text) {
        Ok(text) => Box::leak(text.into_boxed_c_str()),
        Err(_) => c"",
    }
}

fn value(variable: &Text) -> Option<String> {
    let text = variable.get()?.to_string_lossy().into_owned();
    (!text.is_empty()).then_some(text)
}

/// `pg_ark.repository`.
///
/// # Errors
/// `RepositoryUnset` when it is empty; as [`check_source`].
pub fn repository() -> Result<String> {
    check_source()?;
    value(&REPOSITORY).ok_or_else(|| {
        Error::new(ErrorKind::RepositoryUnset, "pg_ark.repository is not set").hint(
            "Run SELECT * FROM ark.enable('file:///path/to/backups') as a superuser; the server's user must be \
             able to write there.",
        )
    })
}

/// The server was told to use this repository by [`ALTER SYSTEM`](guc::alter_system), as `ark.enable` does it once it is
/// there. What a configuration tool wrote into `postgresql.conf` may name one that is yet to be made.
pub fn is_known(url: &str) -> bool {
    let mut content = Vec::new();
    // Every process of the server works in the data directory.
    let read = File::open(AUTO_CONF).and_then(|file| file.take(AUTO_CONF_MAX).read_to_end(&mut content));
    read.is_ok() && names_repository(&String::from_utf8_lossy(&content), url)
}

/// Whether the last value that `pg_ark.repository` has in the file is `url`. The server writes each setting on a line of its
/// own (`write_auto_conf_file`, utils/misc/guc.c).
fn names_repository(auto_conf: &str, url: &str) -> bool {
    let value = |line: &str| {
        let value = line.strip_prefix("pg_ark.repository = '")?.strip_suffix('\'')?;
        Some(value.replace("''", "'").replace(r"\\", r"\"))
    };
    let last = auto_conf.lines().filter_map(|line| value(line.trim_end())).next_back();
    last.is_some_and(|last| !last.is_empty() && path(&last) == path(url))
}

/// The names of a URL's path, as the engine reads it: doubled slashes and `.` are nothing, `..` leads back, `%2F` is a slash.
fn path(url: &str) -> Vec<Vec<u8>> {
    // In a URL of a file a backslash is a slash, and spaces behind it are none of it.
    let decoded = decoded(&url.trim_end_matches(' ').replace('\\', "/"));
    let mut names: Vec<Vec<u8>> = Vec::new();
    for name in decoded.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name.to_vec()),
        }
    }
    names
}

/// With `%2F` and its kin as the bytes that they are.
fn decoded(text: &str) -> Vec<u8> {
    let digit =
        |byte: Option<&u8>| char::from(*byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (mut rest, mut decoded) = (text.as_bytes(), Vec::new());
    while let [first, behind @ ..] = rest {
        let (byte, left) = match (first, digit(behind.first()).zip(digit(behind.get(1)))) {
            (b'%', Some((high, low))) => (high * 16 + low, behind.get(2..).unwrap_or_default()),
            _ => (*first, behind),
        };
        decoded.push(byte);
        rest = left;
    }
    decoded
}

/// Name of this cluster in the repository: `pg_ark.cluster`, or made of `cluster_name` ([`cluster_from_name`]), or
/// `main`. Different values of `cluster_name` can give one name: `my/odd` and `my-odd` do. Servers that share a
/// repository and are named that way need `pg_ark.cluster`.
pub fn cluster() -> String {
    value(&CLUSTER)
        .or_else(|| guc::option(c"cluster_name").map(|name| cluster_from_name(&name)))
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "main".into())
}

/// `pg_ark.database`: the one with the table of jobs.
pub fn database() -> String {
    value(&DATABASE).unwrap_or_else(|| "postgres".into())
}

/// The server's data directory, from the setting that the server keeps absolute.
///
/// # Errors
/// `Internal` when the server has none; `InvalidArgument` for a path that is not UTF-8: tasks and records are JSON,
/// which cannot hold it.
pub fn data_directory() -> Result<String> {
    let path = guc::option_bytes(c"data_directory")
        .ok_or_else(|| Error::new(ErrorKind::Internal, "the server does not tell its data directory"))?;
    String::from_utf8(path).map_err(|e| {
        let shown = e.as_bytes().escape_ascii().to_string();
        let message = format!("the path of the data directory, \"{shown}\", is not UTF-8");
        Error::new(ErrorKind::InvalidArgument, message).hint(
            "Stop the server, rename the folder so that its path is ASCII or UTF-8, and start the server there.",
        )
    })
}

/// `pg_ark.engine_path`, when set.
pub fn engine_path() -> Option<String> {
    value(&ENGINE_PATH)
}

/// `pg_ark.compression`.
///
/// # Errors
/// `InvalidArgument` when the text is not a codec; the check hook does not let that happen.
pub fn compression() -> Result<Compression> {
    value(&COMPRESSION).map_or(Ok(Compression::default()), |text| text.parse())
}

/// `pg_ark.checksum`.
///
/// # Errors
/// `InvalidArgument` when the text is not a checksum; the check hook does not let that happen.
pub fn checksum() -> Result<Checksum> {
    value(&CHECKSUM).map_or(Ok(Checksum::default()), |text| text.parse())
}

/// `pg_ark.jobs`: threads, 0 for one per core.
pub fn jobs() -> u32 {
    JOBS.get().unsigned_abs()
}

/// `pg_ark.max_rate` in bytes per second, 0 for no limit.
pub fn max_rate() -> u64 {
    u64::from(MAX_RATE.get().unsigned_abs()) * KB
}

/// `pg_ark.volume_size` in bytes.
pub fn volume_size() -> u64 {
    u64::from(VOLUME_SIZE.get().unsigned_abs()) * KB
}

/// `pg_ark.archive_wait` in seconds.
pub fn archive_wait() -> u32 {
    ARCHIVE_WAIT.get().unsigned_abs()
}

/// `pg_ark.run_on`.
pub fn run_on() -> RunOn {
    value(&RUN_ON).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// `pg_ark.missed_runs`.
pub fn missed_runs() -> MissedRuns {
    value(&MISSED_RUNS).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// `pg_ark.timezone`.
pub fn timezone() -> String {
    value(&TIMEZONE).unwrap_or_else(|| "UTC".into())
}

/// What `pg_ark.retention_*` keep.
pub fn retention() -> Policy {
    let count = |variable: &GucSetting<i32>| variable.get().unsigned_abs();
    Policy {
        window: u64::from(count(&RETENTION_WINDOW)) * 60,
        min_full: count(&RETENTION_MIN_FULL),
        daily: count(&RETENTION_DAILY),
        weekly: count(&RETENTION_WEEKLY),
        monthly: count(&RETENTION_MONTHLY),
        yearly: count(&RETENTION_YEARLY),
        timezone: timezone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_known_that_the_server_was_told_of() {
        let file = "# Do not edit\nwal_level = 'replica'\npg_ark.repository = 'file:///it''s \\\\ here'\n";
        assert!(names_repository(file, "file:///it's \\ here"));
        assert!(names_repository(file, "file:///it's \\ here/"));
        for other in ["file:///it's", "", "file:///"] {
            assert!(!names_repository(file, other), "{other}");
        }
        let file = "pg_ark.repository = 'file:///a//b c/'\n";
        for same in [
            "file:///a/b c",
            "file:////a/./b%20c",
            "file:///a/x/../b c/ ",
            "file:///a%2fb%20c",
            "file:///a\\b c",
        ] {
            assert!(names_repository(file, same), "{same}");
        }
        for other in ["file:///a/b", "file:///a/b%20", "file:///a/b%2 c", "file:///a/b c%", "s3://a/b c"] {
            assert!(!names_repository(file, other), "{other}");
        }
        let file = "pg_ark.repository = 'file:///it''s \\\\ here'\n";
        // A restored copy is not to use what the original used.
        assert!(!names_repository(&format!("{file}pg_ark.repository = ''\n"), "file:///it's \\ here"));
        assert!(!names_repository("pg_ark.repository = ''\n", ""));
        assert!(!names_repository("#pg_ark.repository = 'file:///b'\n", "file:///b"));
    }
}
