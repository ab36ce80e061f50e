//! Completes the indexes of an archive while there is nothing better to do: lines that a killed writer left out, indexes
//! that were lost or damaged. It goes folder by folder, from the newest to the oldest, and goes on where it was stopped.

use super::index_line::FileFacts;
use super::keeper::{Content, Entered, Keeper};
use super::summary::{Summarizer, Summary};
use crate::postgres::timeline::timeline_of_history_file;
use crate::postgres::wal_segment::{ExpectedSegment, SegmentName};
use pg_ark_contract::{Result, Timeline};
use std::collections::BTreeSet;

/// Segments that are read at a time.
const AT_A_TIME: usize = 256;
/// Segments that cannot be read and are remembered; with more of them nothing is tried again before the next round.
const MAX_GIVEN_UP: usize = 65_536;

/// How far it is.
#[derive(Default)]
pub struct Round {
    /// The folder to go on with; none: from the newest.
    next: Option<(Timeline, u32)>,
    /// Segments that cannot be read: they are for verify-archive to tell.
    given_up: BTreeSet<(Timeline, u64)>,
}

impl Round {
    /// Does some of it; the keeper is asked for more when there is more to do.
    ///
    /// # Errors
    /// What the store said; the next round begins with the newest folder.
    pub fn go_on(&mut self, keeper: &Keeper<'_>) -> Result<()> {
        let from = self.next.take();
        if from.is_none() {
            self.given_up.clear();
            histories(keeper)?;
        }
        let mut room = AT_A_TIME;
        for timeline in keeper.archive.timelines()?.into_iter().rev() {
            for log in keeper.archive.logs(timeline)?.into_iter().rev() {
                if from.is_some_and(|from| (timeline, log) > from) {
                    continue;
                }
                room -= self.folder(keeper, timeline, log, room)?;
                if room == 0 || keeper.is_disturbed() {
                    if self.given_up.len() < MAX_GIVEN_UP {
                        // There may be more in this folder.
                        self.next = Some((timeline, log));
                        keeper.complete();
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Enters segments that the index of a folder lacks; returns how many were looked at.
    fn folder(&mut self, keeper: &Keeper<'_>, timeline: Timeline, log: u32, most: usize) -> Result<usize> {
        let path = keeper.archive.index_path(timeline, log);
        let index = keeper.load(&path)?;
        let lows = keeper.archive.list(timeline, log)?.segments.into_iter().rev();
        let named = |low| SegmentName::parse(&format!("{:08X}{log:08X}{low:08X}", timeline.0), keeper.size);
        let lacks = |name: &SegmentName| {
            index.get(name.number).is_none() && !self.given_up.contains(&(timeline, name.number))
        };
        let lacking: Vec<SegmentName> = lows.filter_map(named).filter(lacks).take(most).collect();
        let mut found = Vec::new();
        for name in &lacking {
            if keeper.is_disturbed() {
                break;
            }
            match read(keeper, *name) {
                Ok(Some(summary)) => {
                    let content = Content::Segment(*name, Box::new(summary));
                    found.push(Entered { path: path.clone(), content });
                }
                Ok(None) => {}
                Err(_) => {
                    self.given_up.insert((timeline, name.number));
                }
            }
        }
        if found.is_empty() && index.problems().1 > 0 && !keeper.is_disturbed() {
            // Without the lines that cannot be read.
            keeper.save(&index, &path)?;
        }
        keeper.write(found)?;
        Ok(lacking.len())
    }
}

/// Enters the histories that their index lacks, if they can be read: the server may have removed its own.
fn histories(keeper: &Keeper<'_>) -> Result<()> {
    let archive = keeper.archive;
    let files = archive.storage().files(&archive.folder())?;
    let names = files.iter().filter_map(|path| path.rsplit('/').next());
    let names: Vec<&str> = names.filter(|name| timeline_of_history_file(name).is_some()).collect();
    let Some(first) = names.first() else { return Ok(()) };
    let path = archive.index_beside(first)?;
    let index = keeper.load(&path)?;
    let mut found = Vec::new();
    for name in names.into_iter().filter(|name| index.file(name).is_none()) {
        if let Ok(Some(content)) = archive.read_plain(name)
            && timeline_of_history_file(name).is_some_and(|t| archive.parse_history(t, &content).is_ok())
        {
            let content = Content::File(name.to_string(), FileFacts::of(&content));
            found.push(Entered { path: path.clone(), content });
        }
    }
    if found.is_empty() && index.problems().1 > 0 {
        keeper.save(&index, &path)?;
    }
    keeper.write(found)
}

fn read(keeper: &Keeper<'_>, name: SegmentName) -> Result<Option<Summary>> {
    let Some(found) = keeper.archive.find(&name.file_name(keeper.size))? else { return Ok(None) };
    let expected = ExpectedSegment {
        name,
        segment_size: keeper.size,
        system_identifier: keeper.archive.system_identifier(),
        server_major: None,
    };
    let mut summarizer = Summarizer::new(name, keeper.size);
    keeper.archive.read_segment(&found, &expected, &mut |piece| {
        summarizer.feed(piece);
        Ok(())
    })?;
    Ok(Some(summarizer.finish()))
}
