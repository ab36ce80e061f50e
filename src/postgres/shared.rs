//! The shared memory between a session and the worker it started: the request goes one way, name and answer the
//! other. It lives as long as one of the two is attached.

use pg_ark_contract::{Error, ErrorKind, Result};
use pgrx::pg_sys;
use std::sync::atomic::{AtomicU32, Ordering};

/// How far the worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing said yet.
    Requested,
    /// The backup runs; the text is its name.
    Started,
    /// It is complete; the text is its row.
    Complete,
    /// It failed; the text is the error.
    Failed,
}

/// Bytes for the name of the backup.
const NAME_SIZE: usize = 256;
/// Bytes for the row or the error; longer texts are refused by [`Channel::publish`].
pub const ANSWER_SIZE: usize = 16 * 1024;
/// Guards against a worker that is started with an argument which is no channel.
const MAGIC: u32 = 0x4152_4b31;

#[repr(C)]
struct Layout {
    magic: u32,
    request_size: u32,
    state: AtomicU32,
    name_size: AtomicU32,
    answer_size: AtomicU32,
    name: [u8; NAME_SIZE],
    answer: [u8; ANSWER_SIZE],
    // The request follows.
}

/// One end of the channel.
pub struct Channel {
    segment: *mut pg_sys::dsm_segment,
    layout: *mut Layout,
}

impl Channel {
    /// Makes a channel that holds `request`. It goes away at the end of the transaction or with the last process
    /// that is attached.
    pub fn create(request: &[u8]) -> Channel {
        let size = size_of::<Layout>() + request.len();
        // SAFETY: the segment has room for the layout and the request, is page-aligned, and nobody else knows it yet.
        unsafe {
            let segment = pg_sys::dsm_create(size, 0);
            let layout = pg_sys::dsm_segment_address(segment).cast::<Layout>();
            std::ptr::write_bytes(layout.cast::<u8>(), 0, size);
            (*layout).magic = MAGIC;
            (*layout).request_size = request.len() as u32;
            std::ptr::copy_nonoverlapping(request.as_ptr(), layout.add(1).cast::<u8>(), request.len());
            Channel { segment, layout }
        }
    }

    /// What the worker needs to attach.
    pub fn handle(&self) -> u32 {
        // SAFETY: the segment is mapped.
        unsafe { pg_sys::dsm_segment_handle(self.segment) }
    }

    /// The worker's end, for the life of the process.
    ///
    /// # Errors
    /// `Cancelled` when the session that made it is gone, `Internal` when it is something else.
    pub fn attach(handle: u32) -> Result<Channel> {
        // SAFETY: the mapping is checked for null, size and magic before it is used.
        unsafe {
            let segment = pg_sys::dsm_attach(handle);
            if segment.is_null() {
                return Err(Error::new(
                    ErrorKind::Cancelled,
                    "the session that asked for the backup is gone",
                ));
            }
            pg_sys::dsm_pin_mapping(segment);
            let layout = pg_sys::dsm_segment_address(segment).cast::<Layout>();
            let size = pg_sys::dsm_segment_map_length(segment);
            let fits = size >= size_of::<Layout>()
                && (*layout).magic == MAGIC
                && (*layout).request_size as usize <= size - size_of::<Layout>();
            if !fits {
                return Err(Error::new(ErrorKind::Internal, "the worker's argument is not a request"));
            }
            Ok(Channel { segment, layout })
        }
    }

    /// The request.
    pub fn request(&self) -> Vec<u8> {
        // SAFETY: written before the worker was registered and never after.
        unsafe {
            let size = (*self.layout).request_size as usize;
            std::slice::from_raw_parts(self.layout.add(1).cast::<u8>(), size).to_vec()
        }
    }

    /// The worker says how far it is. A text that does not fit is cut to nothing; callers keep theirs short.
    pub fn publish(&self, state: State, text: &str) {
        // SAFETY: only the worker writes here; readers look at a text after they saw the state that announces it,
        // and each text is written once.
        unsafe {
            let (target, capacity, size) = match state {
                State::Requested => return,
                State::Started => {
                    ((&raw mut (*self.layout).name).cast::<u8>(), NAME_SIZE, &(*self.layout).name_size)
                }
                State::Complete | State::Failed => {
                    ((&raw mut (*self.layout).answer).cast::<u8>(), ANSWER_SIZE, &(*self.layout).answer_size)
                }
            };
            let bytes = if text.len() <= capacity { text.as_bytes() } else { &[] };
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
            size.store(bytes.len() as u32, Ordering::Relaxed);
            (*self.layout).state.store(state as u32, Ordering::Release);
        }
    }

    /// How far the worker is, with the text that belongs to it.
    pub fn read(&self) -> (State, String) {
        // SAFETY: see `publish`; sizes are bounded by the arrays.
        unsafe {
            let layout = self.layout;
            let state = match (*layout).state.load(Ordering::Acquire) {
                0 => return (State::Requested, String::new()),
                1 => State::Started,
                2 => State::Complete,
                _ => State::Failed,
            };
            let (source, size) = if state == State::Started {
                ((&raw const (*layout).name).cast::<u8>(), (*layout).name_size.load(Ordering::Relaxed))
            } else {
                ((&raw const (*layout).answer).cast::<u8>(), (*layout).answer_size.load(Ordering::Relaxed))
            };
            let text = std::slice::from_raw_parts(source, (size as usize).min(ANSWER_SIZE));
            (state, String::from_utf8_lossy(text).into_owned())
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return; // An error is on its way up: the end of the transaction detaches.
        }
        // SAFETY: the segment is mapped, and the layout is not used after this.
        unsafe { pg_sys::dsm_detach(self.segment) }
    }
}
