//! What keeps the scheduler from its work: told once, and told again when it is over.

use super::limit::in_words;
use crate::translate;
use pg_ark_contract::{Error, ErrorKind};

/// The problems that the log knows of.
#[derive(Default)]
pub struct Problems {
    told: Vec<(ErrorKind, String)>,
}

impl Problems {
    /// These are the problems now: what is new is a WARNING, the end of the last one a line. Of `others` the log knows
    /// already.
    pub fn are(&mut self, now: &[Error], others: &[Error]) {
        self.change(now).iter().for_each(|error| translate::warn_error("pg_ark scheduler", error));
        if now.is_empty() && others.is_empty() && !self.told.is_empty() {
            translate::log("pg_ark scheduler: all is well again");
        }
        self.told = now.iter().chain(others).map(key).collect();
    }

    /// Those that were not told yet. Details may differ from look to look, messages do not.
    fn change<'a>(&self, now: &'a [Error]) -> Vec<&'a Error> {
        let mut seen = self.told.clone();
        let mut is_new = |error: &Error| {
            let key = key(error);
            let new = !seen.contains(&key);
            seen.extend(new.then_some(key));
            new
        };
        now.iter().filter(|error| is_new(error)).collect()
    }
}

/// `error`, with the promise that what failed is tried again after so many seconds.
pub fn tried_again(error: &Error, seconds: u32) -> Error {
    let again = format!("It is tried again in {}.", in_words(seconds));
    let hint = error.hint.as_deref().map_or_else(|| again.clone(), |hint| format!("{hint} {again}"));
    Error { hint: Some(hint), ..error.clone() }
}

fn key(error: &Error) -> (ErrorKind, String) {
    (error.kind, error.message.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_once_whatever_its_detail() {
        let error = |message: &str, detail: u32| Error::new(ErrorKind::Io, message).detail(detail);
        let problems = Problems { told: vec![key(&error("a", 1)), key(&error("b", 1))] };
        assert!(problems.change(&[error("a", 2)]).is_empty());
        assert_eq!(problems.change(&[error("c", 1), error("b", 1)]), [&error("c", 1)]);
        assert_eq!(Problems::default().change(&[error("a", 1)]).len(), 1);
        assert_eq!(Problems::default().change(&[error("a", 1), error("a", 2)]).len(), 1, "equal ones");
    }
}
