//! Choices that cross the wall (codec, checksum) and the catalogue of `pg_ark.*` settings.
//!
//! The extension defines its GUCs from [`CATALOGUE`]; the README's table is checked against it.

use crate::errors::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Codec of stored archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// zstd frames with a content checksum.
    Zstd,
    /// lz4 frames with a content checksum.
    Lz4,
    /// gzip members.
    Gzip,
    /// Plain tar.
    None,
}

impl Codec {
    /// The word used in settings and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Codec::Zstd => "zstd",
            Codec::Lz4 => "lz4",
            Codec::Gzip => "gzip",
            Codec::None => "none",
        }
    }

    /// What follows `.tar` in object names.
    pub fn suffix(self) -> &'static str {
        match self {
            Codec::Zstd => ".zst",
            Codec::Lz4 => ".lz4",
            Codec::Gzip => ".gz",
            Codec::None => "",
        }
    }
}

/// Codec and level: `zstd:1`, `lz4`, `gzip:6`, `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compression {
    /// Codec.
    pub codec: Codec,
    /// Level: zstd 1 to 19, gzip 1 to 9; 0 for the others.
    pub level: i32,
}

impl Default for Compression {
    fn default() -> Self {
        Compression { codec: Codec::Zstd, level: 1 }
    }
}

impl FromStr for Compression {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let bad = |why: String| {
            Error::new(ErrorKind::InvalidArgument, format!("invalid compression \"{s}\": {why}"))
                .hint("Use zstd:N (1 to 19), gzip:N (1 to 9), lz4 or none; for example zstd:1.")
        };
        let (name, level) = match s.split_once(':') {
            Some((name, level)) => {
                let level = level.parse::<i32>().map_err(|_| bad(format!("\"{level}\" is not a level")))?;
                (name, Some(level))
            }
            None => (s, None),
        };
        let (codec, default, range) = match name {
            "zstd" => (Codec::Zstd, 1, 1..=19),
            "gzip" => (Codec::Gzip, 6, 1..=9),
            "lz4" => (Codec::Lz4, 0, 0..=0),
            "none" => (Codec::None, 0, 0..=0),
            _ => return Err(bad(format!("there is no codec \"{name}\""))),
        };
        if level.is_some() && *range.end() == 0 {
            return Err(bad(format!("{name} has no levels")));
        }
        let level = level.unwrap_or(default);
        if !range.contains(&level) {
            return Err(bad(format!("level {level} is outside {} to {}", range.start(), range.end())));
        }
        Ok(Compression { codec, level })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.codec {
            Codec::Zstd | Codec::Gzip => write!(f, "{}:{}", self.codec.as_str(), self.level),
            Codec::Lz4 | Codec::None => f.write_str(self.codec.as_str()),
        }
    }
}

/// Checksum of each file in the backup manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checksum {
    /// CRC-32C: computed by hardware.
    #[default]
    Crc32c,
    /// SHA-256.
    Sha256,
}

impl Checksum {
    /// The word used by the setting.
    pub fn as_str(self) -> &'static str {
        match self {
            Checksum::Crc32c => "crc32c",
            Checksum::Sha256 => "sha256",
        }
    }
}

impl FromStr for Checksum {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        match s {
            "crc32c" => Ok(Checksum::Crc32c),
            "sha256" => Ok(Checksum::Sha256),
            _ => Err(Error::new(ErrorKind::InvalidArgument, format!("invalid checksum \"{s}\""))
                .hint("Use crc32c or sha256.")),
        }
    }
}

/// When a new value acts, in the words of PostgreSQL's `pg_settings.context`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// Server-wide, after a reload.
    Sighup,
    /// Also per session, by a superuser.
    Suset,
}

/// One `pg_ark.*` setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Name with its prefix.
    pub name: &'static str,
    /// Default as text.
    pub default: &'static str,
    /// When a change acts.
    pub context: Context,
    /// One line of help.
    pub help: &'static str,
    /// Why this default.
    pub why: &'static str,
}

const KB: i64 = 1024;

/// Smallest `pg_ark.volume_size` in bytes: one frame of the largest size fits.
pub const VOLUME_SIZE_MIN: u64 = 8 * 1024 * 1024;
/// Default `pg_ark.volume_size` in kB, the unit of the GUC.
pub const VOLUME_SIZE_DEFAULT_KB: i64 = 64 * KB * KB;
/// Default `pg_ark.archive_wait` in seconds, the unit of the GUC.
pub const ARCHIVE_WAIT_DEFAULT: i32 = 300;
/// Longest `pg_ark.archive_wait` in seconds: a day.
pub const ARCHIVE_WAIT_MAX: i32 = 86_400;
/// Most threads that `pg_ark.jobs` may ask for.
pub const JOBS_MAX: i32 = 256;

/// Every setting of this version.
pub const CATALOGUE: &[Setting] = &[
    Setting {
        name: "pg_ark.repository",
        default: "",
        context: Context::Sighup,
        help: "URL of the repository that backups are stored in, for example file:///backups.",
        why: "Only the administrator knows where backups should live.",
    },
    Setting {
        name: "pg_ark.cluster",
        default: "",
        context: Context::Sighup,
        help: "Name of this cluster in the repository; empty: cluster_name with - for other characters than letters, digits, space, - _ . (15/main is 15-main), else main.",
        why: "One repository holds many clusters; cluster_name already tells servers apart.",
    },
    Setting {
        name: "pg_ark.database",
        default: "postgres",
        context: Context::Sighup,
        help: "Database that background workers connect to.",
        why: "It exists on nearly every server and is seldom dropped.",
    },
    Setting {
        name: "pg_ark.engine_path",
        default: "",
        context: Context::Sighup,
        help: "Path of the pgark program; empty: beside the postgres program.",
        why: "scripts/install puts it there.",
    },
    Setting {
        name: "pg_ark.compression",
        default: "zstd:1",
        context: Context::Suset,
        help: "Codec and level of stored archives: zstd:N, gzip:N, lz4 or none.",
        why: "zstd at level 1 compresses faster than most disks write.",
    },
    Setting {
        name: "pg_ark.checksum",
        default: "crc32c",
        context: Context::Suset,
        help: "Checksum of each file in the backup manifest: crc32c or sha256.",
        why: "CRC-32C is computed by hardware, several times faster than a disk reads.",
    },
    Setting {
        name: "pg_ark.jobs",
        default: "0",
        context: Context::Suset,
        help: "Threads of a backup, and segments archived at the same time; 0: one per core.",
        why: "The engine of a backup is niced, so idle cores may as well be used.",
    },
    Setting {
        name: "pg_ark.max_rate",
        default: "0",
        context: Context::Suset,
        help: "Most kilobytes read per second by a backup; 0: no limit. A changed server-wide value acts on a running backup.",
        why: "A short backup disturbs less than a long one; limit it where the disk is shared.",
    },
    Setting {
        name: "pg_ark.volume_size",
        default: "64GB",
        context: Context::Suset,
        help: "Largest object in the repository; a longer archive continues in another object.",
        why: "Fits the part limits of every object store with room to spare.",
    },
    Setting {
        name: "pg_ark.archive_wait",
        default: "5min",
        context: Context::Suset,
        help: "How long a backup waits for the archive to take in its WAL without any news before it fails.",
        why: "Longer than a busy archiver needs for a segment, shorter than a night.",
    },
    Setting {
        name: "pg_ark.run_on",
        default: "primary",
        context: Context::Sighup,
        help: "Which server of a cluster runs scheduled jobs: primary, standby or any.",
        why: "A primary alone is what most clusters are; after a failover the new one goes on.",
    },
    Setting {
        name: "pg_ark.missed_runs",
        default: "once",
        context: Context::Sighup,
        help: "Runs that were due while the server was down: once makes up the last of them, skip leaves them out.",
        why: "A night without a backup is worse than a backup in the morning.",
    },
    Setting {
        name: "pg_ark.timezone",
        default: "UTC",
        context: Context::Sighup,
        help: "Time zone of new schedules, and of the days, weeks, months and years of retention.",
        why: "No hour of UTC is ever left out or comes twice.",
    },
    Setting {
        name: "pg_ark.retention_window",
        default: "7d",
        context: Context::Sighup,
        help: "Every moment of this time stays restorable.",
        why: "A week is how long it may take until a mistake is noticed.",
    },
    Setting {
        name: "pg_ark.retention_min_full",
        default: "2",
        context: Context::Sighup,
        help: "How many of the newest full backups are kept, however old.",
        why: "One may turn out to be bad.",
    },
    Setting {
        name: "pg_ark.retention_daily",
        default: "0",
        context: Context::Sighup,
        help: "Of how many days the newest backup is kept.",
        why: "The window covers the last days.",
    },
    Setting {
        name: "pg_ark.retention_weekly",
        default: "0",
        context: Context::Sighup,
        help: "Of how many weeks the newest backup is kept; a week begins on Monday.",
        why: "What must be kept for longer than the window, only its owner knows.",
    },
    Setting {
        name: "pg_ark.retention_monthly",
        default: "0",
        context: Context::Sighup,
        help: "Of how many months the newest backup is kept.",
        why: "What must be kept for longer than the window, only its owner knows.",
    },
    Setting {
        name: "pg_ark.retention_yearly",
        default: "0",
        context: Context::Sighup,
        help: "Of how many years the newest backup is kept.",
        why: "What must be kept for longer than the window, only its owner knows.",
    },
];

/// Default `pg_ark.retention_window` in minutes, the unit of the GUC: a week.
pub const RETENTION_WINDOW_DEFAULT: i32 = 7 * 24 * 60;
/// Longest `pg_ark.retention_window` in minutes: a hundred years.
pub const RETENTION_WINDOW_MAX: i32 = 100 * 366 * 24 * 60;
/// Largest `pg_ark.retention_min_full`, `_daily` and so on.
pub const RETENTION_COUNT_MAX: i32 = 100_000;

/// `pg_ark.run_on`: which server of a cluster runs scheduled jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOn {
    /// The primary.
    #[default]
    Primary,
    /// Standbys.
    Standby,
    /// Whichever is first.
    Any,
}

impl RunOn {
    /// The word used by the setting.
    pub fn as_str(self) -> &'static str {
        match self {
            RunOn::Primary => "primary",
            RunOn::Standby => "standby",
            RunOn::Any => "any",
        }
    }

    /// Whether a server runs jobs that is in recovery (a standby), or is not.
    pub fn allows(self, in_recovery: bool) -> bool {
        match self {
            RunOn::Primary => !in_recovery,
            RunOn::Standby => in_recovery,
            RunOn::Any => true,
        }
    }
}

impl FromStr for RunOn {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        match s {
            "primary" => Ok(RunOn::Primary),
            "standby" => Ok(RunOn::Standby),
            "any" => Ok(RunOn::Any),
            _ => {
                Err(Error::new(ErrorKind::InvalidArgument, format!("invalid value \"{s}\" of pg_ark.run_on"))
                    .hint("Use primary, standby or any."))
            }
        }
    }
}

/// The name that `cluster_name` gives a cluster in the repository: what a repository does not take becomes `-`
/// (Debian's `15/main` is `15-main`). Empty when nothing is left.
pub fn cluster_from_name(cluster_name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.') { c } else { '-' };
    let name: String = cluster_name.chars().map(plain).collect();
    name.trim_matches(' ').trim_start_matches('.').trim_start().to_string()
}

/// Whether a repository takes this as the name of a cluster or of a job, which becomes a folder: up to 63 bytes of letters,
/// digits, space, `-`, `_` and `.`, with no dot in front and no space at an end.
pub fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.');
    let shape = !name.is_empty() && name.len() <= 63 && !name.starts_with(['.', ' ']) && !name.ends_with(' ');
    shape && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_folders() {
        for good in ["main", "größe 2", "a.b-c_d", &"x".repeat(63)] {
            assert!(is_name(good), "{good:?}");
        }
        for bad in ["", ".", "..", "a/b", "a\0", "a\nb", " a", "a ", "a#1", "a\u{202E}b", &"x".repeat(64)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_cluster_name_becomes_a_name_in_the_repository() {
        for (given, name) in
            [("main", "main"), ("15/main", "15-main"), (" a b ", "a b"), ("..", ""), (". x", "x"), ("", "")]
        {
            assert_eq!(cluster_from_name(given), name, "{given:?}");
        }
    }

    #[test]
    fn compression_reads_what_it_shows() {
        for text in ["zstd:1", "zstd:19", "gzip:6", "lz4", "none"] {
            assert_eq!(text.parse::<Compression>().unwrap().to_string(), text);
        }
        assert_eq!("zstd".parse::<Compression>().unwrap(), Compression::default());
        for text in ["", "zstd:0", "zstd:20", "zstd:x", "gzip:10", "lz4:1", "none:1", "brotli", "ZSTD"] {
            let error = text.parse::<Compression>().unwrap_err();
            assert!(error.hint.is_some(), "{text}");
        }
    }
}
