//! A store that fails at the n-th call: [`Saboteur`] stands between a program and a real store and counts what passes.
//!
//! A store may fail; it does not lie. So a call that the saboteur spoils always ends with an error: nothing was done
//! ([`Fault::Fail`], [`Fault::Gone`]), half of it ([`Fault::Tear`]) or all of it ([`Fault::Deny`]). It can let somebody else do
//! something between two calls ([`Plan::interrupt_at`]). "Half" is what a
//! store that keeps its promise can leave: not half an object under its name, but a piece under a passing one.

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use std::fmt::{Display, Formatter};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// "Input/output error" (errno.h).
pub const EIO: i32 = 5;
/// "No space left on device" (errno.h).
pub const ENOSPC: i32 = 28;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this errno, and nothing was done.
    Fail(i32),
    /// It and every later one fail with this errno.
    Gone(i32),
    /// Of a write, half is stored under a passing name before it fails. Other calls fail.
    Tear,
    /// It is done, and reported as failed.
    Deny,
    /// It is done, later.
    Delay(Duration),
}

/// Counts calls and strikes at one of them.
#[derive(Debug, Default)]
pub struct Plan {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: u64,
    strike: Option<(u64, Fault)>,
    struck: Option<String>,
    meanwhile: Option<(u64, Meanwhile)>,
}

/// What somebody else does.
struct Meanwhile(Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meanwhile")
    }
}

impl Plan {
    /// A plan that strikes at nothing.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Counts from 1 again, and strikes at call `number`.
    pub fn strike_at(&self, number: u64, fault: Fault) {
        *self.lock() = State { strike: Some((number, fault)), ..State::default() };
    }

    /// Counts from 1 again, and does `what` right before call `number`, as somebody else would.
    pub fn interrupt_at(&self, number: u64, what: impl FnOnce() + Send + 'static) {
        *self.lock() = State { meanwhile: Some((number, Meanwhile(Box::new(what)))), ..State::default() };
    }

    /// Lets everything pass from now on. Tells which call was struck, if one was: `put /path`.
    pub fn rest(&self) -> Option<String> {
        std::mem::take(&mut *self.lock()).struck
    }

    /// Calls since the last change of the plan.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// A call that goes to the file system and past the store, where there is nothing between all and nothing.
    ///
    /// # Errors
    /// The fault, when this is the call to strike.
    pub fn pass(&self, call: &str, path: &str) -> std::io::Result<()> {
        match self.next(call, path) {
            None => Ok(()),
            Some(Fault::Delay(time)) => {
                std::thread::park_timeout(time);
                Ok(())
            }
            Some(fault) => Err(fault.error()),
        }
    }

    fn next(&self, call: &str, path: &str) -> Option<Fault> {
        let mut state = self.lock();
        state.calls += 1;
        let calls = state.calls;
        if let Some((_, Meanwhile(what))) = state.meanwhile.take_if(|(number, _)| *number == calls) {
            state.struck = Some(format!("{call} {path}"));
            drop(state);
            // The caller may be in the middle of an executor, of which a thread has one.
            std::thread::spawn(what).join().expect("what somebody else did");
            return None;
        }
        let (number, fault) = state.strike?;
        let hit = state.calls == number || (matches!(fault, Fault::Gone(_)) && state.calls > number);
        if hit && state.struck.is_none() {
            state.struck = Some(format!("{call} {path}"));
        }
        hit.then_some(fault)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fault {
    fn error(self) -> std::io::Error {
        std::io::Error::from_raw_os_error(match self {
            Fault::Fail(errno) | Fault::Gone(errno) => errno,
            Fault::Tear | Fault::Deny | Fault::Delay(_) => EIO,
        })
    }
}

fn failed(fault: Fault) -> Error {
    Error::Generic { store: "saboteur", source: Box::new(fault.error()) }
}

/// What to do with one call.
enum Way {
    Pass,
    Fail(Error),
    Tear(Error),
    DoAndFail(Error),
}

fn way(plan: &Plan, call: &str, path: &str) -> Way {
    match plan.next(call, path) {
        None => Way::Pass,
        Some(Fault::Delay(time)) => {
            std::thread::park_timeout(time);
            Way::Pass
        }
        Some(fault @ (Fault::Fail(_) | Fault::Gone(_))) => Way::Fail(failed(fault)),
        Some(Fault::Tear) => Way::Tear(failed(Fault::Tear)),
        Some(Fault::Deny) => Way::DoAndFail(failed(Fault::Deny)),
    }
}

/// Carries a call out the way that the plan says; a torn one is left out.
macro_rules! carry_out {
    ($way:expr, $work:expr) => {
        match $way {
            Way::Pass => $work,
            Way::Fail(error) | Way::Tear(error) => Err(error),
            Way::DoAndFail(error) => $work.and_then(|_| Err(error)),
        }
    };
}

/// A store that carries out a [`Plan`].
#[derive(Debug)]
pub struct Saboteur {
    inner: Arc<dyn ObjectStore>,
    plan: Arc<Plan>,
}

impl Saboteur {
    /// Stands before `inner`.
    pub fn before(inner: Arc<dyn ObjectStore>, plan: Arc<Plan>) -> Arc<dyn ObjectStore> {
        Arc::new(Saboteur { inner, plan })
    }

    fn way(&self, call: &str, path: &Path) -> Way {
        way(&self.plan, call, path.as_ref())
    }
}

impl Display for Saboteur {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "a saboteur before {}", self.inner)
    }
}

/// The first half of what was to be stored, as a writer that died leaves it on a local store: `name#number`.
fn leave_half(location: &Path, payload: &PutPayload) {
    let bytes: Vec<u8> = payload.iter().flat_map(|piece| piece.iter().copied()).collect();
    let file = std::path::PathBuf::from(format!("/{location}#7"));
    if file.parent().is_some_and(std::path::Path::is_dir) {
        std::fs::write(&file, &bytes[..bytes.len() / 2]).expect("half an object");
    }
}

#[async_trait]
impl ObjectStore for Saboteur {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let way = self.way("put", location);
        if matches!(way, Way::Tear(_)) {
            leave_half(location, &payload);
        }
        carry_out!(way, self.inner.put_opts(location, payload, options).await)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload =
            carry_out!(self.way("begin", location), self.inner.put_multipart_opts(location, options).await)?;
        Ok(Box::new(Parts { inner: upload, plan: Arc::clone(&self.plan), path: location.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let call = if options.head { "head" } else { "get" };
        carry_out!(self.way(call, location), self.inner.get_opts(location, options).await)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, plan) = (Arc::clone(&self.inner), Arc::clone(&self.plan));
        locations
            .then(move |location| {
                let (inner, plan) = (Arc::clone(&inner), Arc::clone(&plan));
                async move {
                    let location = location?;
                    carry_out!(way(&plan, "delete", location.as_ref()), {
                        let one = futures::stream::iter([Ok(location)]).boxed();
                        inner.delete_stream(one).next().await.unwrap_or_else(|| Err(failed(Fault::Fail(EIO))))
                    })
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.way("list", prefix.unwrap_or(&Path::default())) {
            Way::Pass => self.inner.list(prefix),
            Way::Fail(error) => futures::stream::iter([Err(error)]).boxed(),
            // A listing that breaks off.
            Way::Tear(error) | Way::DoAndFail(error) => {
                self.inner.list(prefix).take(1).chain(futures::stream::iter([Err(error)])).boxed()
            }
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let way = self.way("list", prefix.unwrap_or(&Path::default()));
        carry_out!(way, self.inner.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        carry_out!(self.way("copy", to), self.inner.copy_opts(from, to, options).await)
    }
}

#[derive(Debug)]
struct Parts {
    inner: Box<dyn MultipartUpload>,
    plan: Arc<Plan>,
    path: Path,
}

#[async_trait]
impl MultipartUpload for Parts {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        match way(&self.plan, "part", self.path.as_ref()) {
            Way::Pass => self.inner.put_part(data),
            Way::Fail(error) => Box::pin(async move { Err(error) }),
            Way::Tear(error) => {
                let bytes: Vec<u8> = data.iter().flat_map(|piece| piece.iter().copied()).collect();
                let half = self.inner.put_part(PutPayload::from(bytes[..bytes.len() / 2].to_vec()));
                Box::pin(async move { half.await.and(Err(error)) })
            }
            Way::DoAndFail(error) => {
                let all = self.inner.put_part(data);
                Box::pin(async move { all.await.and(Err(error)) })
            }
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        carry_out!(way(&self.plan, "complete", self.path.as_ref()), self.inner.complete().await)
    }

    async fn abort(&mut self) -> Result<()> {
        carry_out!(way(&self.plan, "abort", self.path.as_ref()), self.inner.abort().await)
    }
}
