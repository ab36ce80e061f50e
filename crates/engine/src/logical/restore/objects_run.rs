//! Tables and schemas into a database of a running server, carried out: one transaction that brings them or changes nothing,
//! then what may fail.

use super::load::{Job, Load};
use super::objects::Objects;
use super::report::Problem;
use super::use_list::UseList;
use crate::logical::stored::Dump;
use crate::logical::toc::Toc;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{BufReader, Read};

/// Restores them: all in one transaction, then what may fail.
///
/// # Errors
/// `ServerNotReady` with the server's words when the transaction failed: then nothing was changed. As [`Load::run`].
pub fn run(load: &Load<'_>, dump: &Dump<'_>, objects: &Objects) -> Result<Vec<Problem>> {
    let target = &objects.step.target;
    let taken = Taken { list: Some(&objects.list), options: &objects.options, drop: objects.drop.as_deref() };
    transaction(load, &mut dump.reader(), target, &objects.toc, &taken)?;
    if objects.after.is_empty() {
        return Ok(Vec::new());
    }
    let list = in_order(&objects.toc, &objects.after)?;
    let mut options = objects.options.clone();
    options.push(list.option());
    load.feed(&mut dump.reader(), &Job { name: target, connect: target, options: &options, jobs: 1 })
}

/// What a transaction takes of a dump.
#[derive(Debug, Clone, Copy)]
pub struct Taken<'a> {
    /// Numbers of its entries; none: all.
    pub list: Option<&'a BTreeSet<u32>>,
    /// More options of pg_restore.
    pub options: &'a [OsString],
    /// SQL that comes first.
    pub drop: Option<&'a str>,
}

/// The entries in the order of the dump.
fn in_order(toc: &Toc, ids: &BTreeSet<u32>) -> Result<UseList> {
    UseList::new(toc.entries.iter().map(|entry| entry.id).filter(|id| ids.contains(id)))
}

/// A dump into `target` in one transaction. `toc` is that of the dump, where a list is given.
///
/// # Errors
/// As [`run`].
pub fn transaction(
    load: &Load<'_>,
    dump: &mut (dyn Read + Send),
    target: &str,
    toc: &Toc,
    taken: &Taken<'_>,
) -> Result<()> {
    let mut options = taken.options.to_vec();
    options.push("--single-transaction".into());
    let list = taken.list.map(|list| in_order(toc, list)).transpose()?;
    options.extend(list.as_ref().map(UseList::option));
    let mut rest = BufReader::new(dump);
    let head = match taken.drop {
        Some(sql) => {
            options.extend(["--clean".into(), "--if-exists".into()]);
            Toc::with_drop(&mut rest, taken.list, sql)?
        }
        None => Vec::new(),
    };
    let job = Job { name: target, connect: target, options: &options, jobs: 1 };
    let problems = load.feed(&mut head.as_slice().chain(rest), &job)?;
    match problems.is_empty() {
        true => Ok(()),
        false => Err(undone(target, &problems)),
    }
}

fn undone(target: &str, problems: &[Problem]) -> Error {
    let said: Vec<&str> = problems.iter().take(5).map(|problem| problem.message.as_str()).collect();
    Error::new(ErrorKind::ServerNotReady, format!("nothing was restored into database \"{target}\""))
        .detail(said.join("\n"))
        .hint("All was done in one transaction, which the server has undone: everything is as it was. Mend the cause and run the same command again.")
}
