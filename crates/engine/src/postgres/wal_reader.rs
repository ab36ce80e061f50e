//! Reads WAL as a stream: bytes in, in pieces of any size, records out. Of a record only its beginning is kept, so
//! memory does not depend on its length.
//!
//! Source: `XLogDecodeNextRecord` and `XLogFindNextRecord` in `xlogreader.c`. Records follow each other on 8-byte
//! boundaries; one that does not fit on its page goes on behind the header of the next. The end of the WAL is where the
//! chain breaks: a length of zero, a page that was not written since its file was recycled, a record that does not
//! name the one before it.

use super::bytes::u32_at;
use super::wal_event::{PreparedXid, is_switch};
use super::wal_page::{Begins, Kept, LONG_HEADER, Pages, SHORT_HEADER, header_size};
use super::wal_record::{Header, Partial, RECORD_HEADER, Record, Stop, check_length, main_data, stop};
use pg_ark_contract::units::{Lsn, SegmentSize};

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The first page, of which nothing is known.
    Start,
    /// A new record.
    Boundary,
    /// The rest of a record whose beginning was not seen, so many bytes of it.
    Rest(u64),
    /// The record that is being collected.
    Record,
}

/// Reads a stream of WAL.
#[derive(Debug, Clone)]
pub struct WalReader {
    segment_size: u64,
    check_crc: bool,
    pages: Pages,
    /// LSN of the next byte; the next page header is at `page_end`; bytes before `skip_to` mean nothing.
    at: u64,
    page_end: u64,
    skip_to: u64,
    page_header: Kept<LONG_HEADER>,
    place: Place,
    partial: Partial,
    /// Where the last whole record began.
    previous: Option<u64>,
    end: Option<Lsn>,
    /// A switch seems to end here, but only its last bytes were seen.
    rest: Kept<16>,
    maybe_switch: Option<u64>,
    stopped: Option<Stop>,
}

/// The least multiple of 8 that is not below (`MAXALIGN`).
fn align(lsn: u64) -> u64 {
    lsn.saturating_add(7) & !7
}

impl WalReader {
    /// A reader whose first byte is that of the segment that begins at `start`. Nothing is known before it: the rest
    /// of a record that began earlier is skipped. `check_crc` reads every byte of every record; without it the chain,
    /// the headers of records and those of pages are checked.
    pub fn new(start: Lsn, segment_size: SegmentSize, check_crc: bool) -> Self {
        WalReader {
            segment_size: segment_size.bytes(),
            check_crc,
            pages: Pages::new(segment_size),
            at: start.0,
            page_end: start.0,
            skip_to: start.0,
            page_header: Kept::new(),
            place: Place::Start,
            partial: Partial::new(start.0),
            previous: None,
            end: None,
            rest: Kept::new(),
            maybe_switch: None,
            stopped: None,
        }
    }

    /// Reads the next bytes and calls `on_record` for each record that ends in them. The segment that follows is just
    /// more bytes, on the same timeline or a later one: the chain of records goes on over both. What comes after the
    /// reader has stopped is ignored.
    pub fn feed(&mut self, mut bytes: &[u8], on_record: &mut dyn FnMut(&Record<'_>)) {
        while !bytes.is_empty() && self.stopped.is_none() {
            match self.step(bytes, on_record) {
                Ok(used) => {
                    self.at = self.at.saturating_add(used as u64);
                    bytes = bytes.get(used..).unwrap_or_default();
                }
                Err(stop) => self.stopped = Some(stop),
            }
        }
    }

    /// End of the last whole record, as [`Record::end`] has it: where PostgreSQL's recovery would end. A record that
    /// began before the first byte counts when its end was seen. `None` before there is one.
    pub fn end(&self) -> Option<Lsn> {
        self.end
    }

    /// LSN of the next byte that [`feed`](Self::feed) takes; after a stop a position at or before the stop.
    pub fn position(&self) -> Lsn {
        Lsn(self.at)
    }

    /// Where and why the records end; `None` while they go on.
    pub fn stopped(&self) -> Option<&Stop> {
        self.stopped.as_ref()
    }

    /// Start of the record that has begun, is not complete, and goes on in the next bytes. `None` after a stop, and
    /// for a record that began before the first byte.
    pub fn pending(&self) -> Option<Lsn> {
        (self.place == Place::Record && self.stopped.is_none()).then_some(Lsn(self.partial.start))
    }

    /// Takes at least one byte, or changes the place.
    fn step(&mut self, bytes: &[u8], on_record: &mut dyn FnMut(&Record<'_>)) -> Result<usize, Stop> {
        let before = |limit: u64| {
            let room = usize::try_from(limit - self.at).unwrap_or(usize::MAX);
            bytes.get(..room.min(bytes.len())).unwrap_or_default()
        };
        if self.at < self.skip_to {
            return Ok(before(self.skip_to).len());
        }
        if self.at >= self.page_end {
            return self.take_page_header(bytes);
        }
        let bytes = before(self.page_end);
        match self.place {
            Place::Rest(left) => Ok(self.take_rest(left, bytes)),
            Place::Record => self.take_piece(bytes, on_record),
            Place::Start | Place::Boundary => self.take_records(bytes, on_record),
        }
    }

    fn take_page_header(&mut self, bytes: &[u8]) -> Result<usize, Stop> {
        let page = self.page_end;
        let mut used = self.page_header.fill(SHORT_HEADER, bytes);
        let size = header_size(self.page_header.get());
        used += self.page_header.fill(size, bytes.get(used..).unwrap_or_default());
        if self.page_header.get().len() < size {
            return Ok(used);
        }
        let begins = self.pages.check(Lsn(page), self.page_header.get());
        let begins = begins.or_else(|why| stop(page, format!("the page is not valid: {why}")))?;
        self.page_header.clear();
        self.page_end = page.saturating_add(self.pages.block_size());
        self.place = self.place_after(page, begins)?;
        Ok(used)
    }

    /// What follows a page header.
    fn place_after(&mut self, page: u64, begins: Begins) -> Result<Place, Stop> {
        let left = match self.place {
            Place::Start | Place::Boundary => 0,
            Place::Rest(left) => left,
            Place::Record => u64::from(self.partial.length).saturating_sub(self.partial.got),
        };
        match begins {
            Begins::Overwrite => Ok(Place::Boundary),
            Begins::Record if left == 0 => Ok(Place::Boundary),
            Begins::Record => {
                stop(page, format!("the page lacks the {left} bytes that {} still has", self.unfinished()))
            }
            Begins::Continued(0) => stop(page, "the page begins with the rest of a record, of 0 bytes"),
            Begins::Continued(rest) if self.place == Place::Start => {
                self.rest.clear();
                Ok(Place::Rest(u64::from(rest)))
            }
            Begins::Continued(rest) if left == u64::from(rest) => Ok(self.place),
            Begins::Continued(rest) => stop(
                page,
                format!(
                    "the page begins with {rest} bytes of a record; {} has {left} left",
                    self.unfinished()
                ),
            ),
        }
    }

    fn unfinished(&self) -> String {
        match self.place {
            Place::Record => format!("the record at {}", Lsn(self.partial.start)),
            _ => "the record before".to_owned(),
        }
    }

    /// The rest of a record whose beginning was not seen.
    fn take_rest(&mut self, left: u64, bytes: &[u8]) -> usize {
        let used = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.rest.fill(16, bytes.get(..used).unwrap_or_default());
        let left = left - used as u64;
        self.place = Place::Rest(left);
        if left == 0 {
            self.place = Place::Boundary;
            self.skip_to = align(self.at.saturating_add(used as u64));
            self.end = Some(Lsn(self.skip_to));
            let is_switch = rest_is_switch(self.rest.get());
            self.maybe_switch = is_switch.then_some(self.skip_to);
        }
        used
    }

    /// Records that are whole in `bytes`, which are of one page.
    fn take_records(&mut self, bytes: &[u8], on_record: &mut dyn FnMut(&Record<'_>)) -> Result<usize, Stop> {
        let mut used = 0;
        while let Some((rest, header)) = bytes.get(used..).and_then(|rest| Some((rest, Header::read(rest)?)))
        {
            let start = self.at.saturating_add(used as u64);
            if header.length == 0 && self.maybe_switch == Some(start) {
                break;
            }
            header.check(start, self.previous)?;
            let Some(record) = rest.get(..header.length as usize) else { break };
            if self.check_crc {
                let data = record.get(RECORD_HEADER..).unwrap_or_default();
                header.check_crc(start, record, crc32c::crc32c(data))?;
            }
            let prepared = PreparedXid::of(header.rmgr, header.info, self.pages.server_major());
            let prepared_xid = prepared.map(|mut search| {
                search.feed(main_data(record).unwrap_or_default());
                search.xid()
            });
            let end = self.advance(start, start.saturating_add(u64::from(header.length)), &header);
            on_record(&Record::new(start, end, header, record, prepared_xid));
            used = bytes.len().min(usize::try_from(end.saturating_sub(self.at)).unwrap_or(usize::MAX));
        }
        if used < bytes.len() {
            self.place = Place::Record;
            self.partial = Partial::new(self.at.saturating_add(used as u64));
        }
        Ok(used)
    }

    /// A piece of a record that is not whole on its page, or not whole in the bytes at hand.
    fn take_piece(&mut self, bytes: &[u8], on_record: &mut dyn FnMut(&Record<'_>)) -> Result<usize, Stop> {
        let start = self.partial.start;
        let mut used = 0;
        if self.partial.header.is_none() {
            used = self.partial.kept.fill(RECORD_HEADER, bytes);
            self.partial.got += used as u64;
            if let Some(length) = u32_at(self.partial.kept.get(), 0) {
                if length == 0 && self.maybe_switch == Some(start) {
                    self.skip_segment(start);
                    return Ok(used);
                }
                check_length(start, length)?;
                self.partial.length = length;
            }
            let Some(header) = Header::read(self.partial.kept.get()) else { return Ok(used) };
            header.check(start, self.previous)?;
            self.partial.prepared = PreparedXid::of(header.rmgr, header.info, self.pages.server_major());
            self.partial.header = Some(header);
        }
        let Some(header) = self.partial.header else { return Ok(used) };
        used += self.partial.take(bytes.get(used..).unwrap_or_default(), self.check_crc);
        if self.partial.got == u64::from(header.length) {
            if self.check_crc {
                header.check_crc(start, self.partial.kept.get(), self.partial.crc)?;
            }
            let end = self.advance(start, self.at.saturating_add(used as u64), &header);
            let prepared_xid = self.partial.prepared.as_ref().map(PreparedXid::xid);
            on_record(&Record::new(start, end, header, self.partial.kept.get(), prepared_xid));
        }
        Ok(used)
    }

    /// Goes on behind a whole record, whose last byte is before `behind`; returns where.
    fn advance(&mut self, start: u64, behind: u64, header: &Header) -> u64 {
        self.previous = Some(start);
        self.place = Place::Boundary;
        let end = align(behind);
        if is_switch(header.rmgr, header.info) {
            self.skip_segment(end);
        } else {
            self.skip_to = end;
            self.end = Some(Lsn(end));
        }
        self.skip_to
    }

    /// Nothing more is in the segment that holds the byte before `lsn`.
    fn skip_segment(&mut self, lsn: u64) {
        let end = lsn.div_ceil(self.segment_size).saturating_mul(self.segment_size);
        self.place = Place::Boundary;
        self.skip_to = end;
        self.page_end = self.page_end.max(end);
        self.end = Some(Lsn(end));
    }
}

/// Whether the last bytes of a record can be those of an XLOG_SWITCH, which is all header: 8 or 16 bytes of it are on
/// the new page. It is one if nothing follows it.
fn rest_is_switch(rest: &[u8]) -> bool {
    matches!(rest, [info, rmgr, 0, 0, _, _, _, _] | [_, _, _, _, _, _, _, _, info, rmgr, 0, 0, _, _, _, _]
        if is_switch(*rmgr, *info))
}

#[cfg(test)]
#[path = "wal_reader_tests.rs"]
mod tests;
