//! Collects what is found, in any order and from any thread, and makes rows of it. There are never too many.

use crate::stored::faults::Fault;
use crate::stored::names::shown;
use pg_ark_contract::rows::{FindingRow, Severity};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Findings of each severity, about one backup, that get a row of their own: many warnings must hide no error.
const MAX_ROWS: usize = 1000;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Path of the object in the repository.
    pub object: String,
    /// The file in it, as the manifest or the tar calls it.
    pub file: Option<String>,
    /// So many other files are touched.
    pub more: u64,
    /// What was found, in one sentence without the path.
    pub finding: String,
    /// What to do.
    pub hint: Option<String>,
    /// It is archived WAL that is not there.
    pub missing_wal: bool,
}

impl Finding {
    /// A finding about a whole object.
    pub fn new(severity: Severity, object: impl Into<String>, finding: impl Into<String>) -> Self {
        let finding = finding.into();
        Finding {
            severity,
            object: object.into(),
            file: None,
            more: 0,
            finding,
            hint: None,
            missing_wal: false,
        }
    }

    /// An error that a restore would stop with.
    pub fn fault(object: impl Into<String>, fault: &Fault) -> Self {
        Finding::new(Severity::Error, object, fault.sentence()).hint(fault.hint)
    }

    /// Adds what to do.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Finding { hint: Some(hint.into()), ..self }
    }

    /// Says that it is archived WAL, and not there.
    pub fn missing_wal(self, missing_wal: bool) -> Self {
        Finding { missing_wal, ..self }
    }

    /// Names the file.
    pub fn file(self, path: &[u8]) -> Self {
        Finding { file: Some(String::from_utf8_lossy(path).into_owned()), ..self }
    }

    fn row(self, backup: Option<&str>, name: &mut dyn FnMut(&str) -> Option<String>) -> FindingRow {
        let mut object = self.object;
        if let Some(file) = &self.file {
            object.push_str(&format!(": {}", shown(file.as_bytes())));
            if let Some(name) = name(file) {
                object.push_str(&format!(" ({name})"));
            }
        }
        match self.more {
            0 => {}
            1 => object.push_str(" and 1 more file"),
            more => object.push_str(&format!(" and {more} more files")),
        }
        FindingRow {
            backup: backup.map(str::to_string),
            severity: self.severity,
            object,
            finding: self.finding,
            hint: self.hint,
            missing_wal: self.missing_wal,
        }
    }
}

/// What was found about one backup, or about what belongs to none.
#[derive(Debug, Default)]
pub struct Findings {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    found: Vec<Finding>,
    errors: usize,
    warnings: usize,
    errors_left: u64,
    warnings_left: u64,
}

impl Findings {
    /// Adds one, or counts it when there are too many of its severity.
    pub fn add(&self, finding: Finding) {
        let mut inner = self.lock();
        let Inner { found, errors, warnings, errors_left, warnings_left } = &mut *inner;
        let (count, left) = match finding.severity {
            Severity::Error => (errors, errors_left),
            Severity::Warning => (warnings, warnings_left),
        };
        if *count < MAX_ROWS {
            *count += 1;
            found.push(finding);
        } else {
            *left += 1;
        }
    }

    /// Whether something was found about this object.
    pub fn knows(&self, object: &str) -> bool {
        self.lock().found.iter().any(|finding| finding.object == object)
    }

    /// The rows, sorted by object. `name` says to which relation a file belongs; `place` is the object that stands for
    /// what was only counted.
    pub fn into_rows(
        self,
        backup: Option<&str>,
        place: &str,
        name: &mut dyn FnMut(&str) -> Option<String>,
    ) -> Vec<FindingRow> {
        let mut inner = self.inner.into_inner().unwrap_or_else(PoisonError::into_inner);
        inner.found.sort_by(|a, b| (&a.object, &a.file, &a.finding).cmp(&(&b.object, &b.file, &b.finding)));
        let mut rows: Vec<_> = inner.found.into_iter().map(|finding| finding.row(backup, name)).collect();
        let left = inner.errors_left + inner.warnings_left;
        if left > 0 {
            let severity = if inner.errors_left > 0 { Severity::Error } else { Severity::Warning };
            let finding = Finding::new(severity, place, format!("{left} more findings are not listed"));
            rows.push(finding.row(backup, &mut |_| None));
        }
        rows
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_warnings_hide_no_error() {
        let findings = Findings::default();
        for number in 0..2 * MAX_ROWS {
            findings.add(Finding::new(Severity::Warning, format!("a{number}"), "looks odd"));
        }
        findings.add(Finding::new(Severity::Error, "z", "is lost"));
        let rows = findings.into_rows(None, "folder", &mut |_| None);
        assert_eq!(rows.len(), MAX_ROWS + 2);
        assert!(rows.iter().any(|row| row.object == "z" && row.severity == Severity::Error));
        let left = rows.last().unwrap();
        assert!(left.severity == Severity::Warning && left.finding.starts_with("1000 more"), "{left:?}");
    }
}
