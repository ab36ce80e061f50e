//! Objects in a directory or an object store, behind blocking calls.
//!
//! What: the only module that knows `object_store` and futures; a caller sees bytes, sizes and [`Error`]s with paths.
//! Why: durability (fsync of file and folder, or the store's acknowledgement) is decided in one place.
//! Rejected: an async engine. The local store does its I/O on the calling thread when no runtime is there, so
//! blocking costs nothing.

use super::behind::Behind;
use super::layout;
use crate::page_cache;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::executor::block_on;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use pg_ark_contract::{Error, ErrorKind, Result};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes collected before a part is written: above the smallest part that S3 accepts (5 MiB).
const PART_SIZE: usize = 8 << 20;

/// Bytes of small pieces collected before they count as one.
const SMALL_SIZE: usize = 64 << 10;

/// Objects of so many bytes leave nothing in the page cache.
const LARGE: usize = 128 << 10;

/// Neither do reads of so many: frames of well compressed data are small, and the kernel would read ahead.
const LARGE_READ: usize = 16 << 10;

/// Seconds before and after 1970 that a calendar of 250,000 years holds: more make `chrono` panic.
const LAST_SECOND: u64 = 7_889_400_000_000;

/// What the name of an object begins with that only proves that it can be written.
pub const PROBE: &str = "probe-";

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Path below the repository's root.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
}

/// A place for objects, opened by URL.
#[derive(Debug, Clone)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    gate: Option<Gate>,
    url: String,
    folder: PathBuf,
}

/// Asked before each call that goes to the file system and past the store: what is done, and where.
type Ask = dyn Fn(&str, &std::path::Path) -> std::io::Result<()> + Send + Sync;

#[derive(Clone)]
struct Gate(Arc<Ask>);

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate")
    }
}

impl Storage {
    /// Opens the place that `url` names. The folder itself need not exist yet; [`Storage::create_folder`] makes it.
    ///
    /// # Errors
    /// `InvalidArgument` for a URL that is none, `Unsupported` for a scheme this version does not know,
    /// `RepositoryUnusable` when the path is not a directory.
    pub fn open(url: &str) -> Result<Self> {
        let folder = local_folder(url)?;
        match std::fs::metadata(&folder) {
            Ok(meta) if !meta.is_dir() => {
                return Err(Error::new(
                    ErrorKind::RepositoryUnusable,
                    format!("repository \"{}\" is not a directory", folder.display()),
                )
                .hint("Name a directory, or one that does not exist yet."));
            }
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => {
                return Err(unusable(format!("could not look at repository \"{}\"", folder.display()), &e));
            }
        }
        Ok(Storage { store: local_store(), gate: None, url: url.to_string(), folder })
    }

    /// The same place behind another store, which passes calls on to the one that it is given.
    pub fn wrapped(mut self, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        self.store = wrap(self.store);
        self
    }

    /// The same place; `ask` may refuse the calls that go past the store.
    pub fn gated(
        mut self,
        ask: impl Fn(&str, &std::path::Path) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.gate = Some(Gate(Arc::new(ask)));
        self
    }

    pub(super) fn pass(&self, call: &str, path: &std::path::Path) -> std::io::Result<()> {
        self.gate.as_ref().map_or(Ok(()), |gate| (gate.0)(call, path))
    }

    /// The URL it was opened by.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The directory of a local repository.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// Creates the repository's folder durably, readable by its owner alone.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create_folder(&self) -> Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        let failed = |e: std::io::Error| {
            unusable(format!("could not create repository folder \"{}\"", self.folder.display()), &e)
        };
        let missing = self.folder.ancestors().take_while(|folder| !folder.is_dir()).count();
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(failed)?;
        // One that is there may have been made by a program that was killed before it could do this.
        for above in self.folder.ancestors().skip(1).take(missing.max(1)) {
            let synced = std::fs::File::open(above).and_then(|open| open.sync_all());
            // Nobody may read the folder above one that somebody else made.
            if missing > 0 {
                synced.map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Bytes free for this user where the repository is; `None` when the store has no such notion.
    pub fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.folder).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Shows `path` as a user would name it.
    pub fn display(&self, path: &str) -> String {
        self.folder.join(path).display().to_string()
    }

    /// A small object whole; `None` when there is none.
    ///
    /// # Errors
    /// `Corrupt` when it is larger than `max` bytes; otherwise what the store said.
    pub fn get(&self, path: &str, max: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.get_dated(path, max)?.map(|(bytes, _)| bytes))
    }

    /// As [`Storage::get`], with the time when it was written, by the store's clock.
    ///
    /// # Errors
    /// As [`Storage::get`].
    pub fn get_dated(&self, path: &str, max: u64) -> Result<Option<(Vec<u8>, DateTime<Utc>)>> {
        let Some(size) = self.size(path)? else { return Ok(None) };
        if size > max {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("\"{}\" has {size} bytes, more than the {max} it may have", self.display(path)),
            ));
        }
        let location = self.location(path)?;
        let read = async {
            let found = self.store.get(&location).await?;
            let modified = found.meta.last_modified;
            found.bytes().await.map(|bytes| (bytes.to_vec(), modified))
        };
        match block_on(read) {
            Ok(found) => Ok(Some(found)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.error("read", path, &e)),
        }
    }

    /// What the store's own clock says: when it wrote an object that was written now.
    ///
    /// # Errors
    /// What the store said.
    pub fn clock(&self) -> Result<DateTime<Utc>> {
        let name = format!("{PROBE}{}", uuid::Uuid::new_v4());
        self.put(&name, &b"pg_ark\n"[..])?;
        let written = block_on(self.store.head(&self.location(&name)?)).map(|meta| meta.last_modified);
        let written = written.map_err(|e| self.error("look at", &name, &e));
        self.delete(&name)?;
        written
    }

    /// `len` bytes from `offset`; exactly that many.
    ///
    /// # Errors
    /// `Corrupt` when the object is absent or shorter; otherwise what the store said.
    pub fn get_range(&self, path: &str, offset: u64, len: usize) -> Result<Bytes> {
        let location = self.location(path)?;
        let range = offset..offset.saturating_add(len as u64);
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.refuse_special(path)?;
        let options = GetOptions { range: Some(range.clone().into()), ..Default::default() };
        let read = async { self.store.get_opts(&location, options).await?.bytes().await };
        let read = block_on(read);
        if len >= LARGE_READ
            && let Ok(file) = std::fs::File::open(self.folder.join(path))
        {
            page_cache::drop_read(&file, range.clone());
        }
        match read {
            Ok(bytes) if bytes.len() == len => Ok(bytes),
            Ok(bytes) => Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "\"{}\" ends at byte {}, before {}",
                    self.display(path),
                    range.start + bytes.len() as u64,
                    range.end
                ),
            )),
            Err(object_store::Error::NotFound { .. }) => {
                Err(Error::new(ErrorKind::Corrupt, format!("\"{}\" is missing", self.display(path))))
            }
            Err(e) => match self.size(path)? {
                Some(size) if size < range.end => Err(Error::new(
                    ErrorKind::Corrupt,
                    format!("\"{}\" ends at byte {size}, before {}", self.display(path), range.end),
                )),
                _ => Err(self.error("read", path, &e)),
            },
        }
    }

    /// Size in bytes; `None` when there is no such object.
    ///
    /// # Errors
    /// What the store said.
    pub fn size(&self, path: &str) -> Result<Option<u64>> {
        let location = self.location(path)?;
        self.refuse_special(path)?;
        match block_on(self.store.head(&location)) {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => {
                self.no_lost_link(&self.folder.join(path))?;
                Ok(None)
            }
            Err(e) => Err(self.error("look at", path, &e)),
        }
    }

    /// When what stands at `path` was last changed, be it an object or not; a link itself, not what it leads to. `None`
    /// when nothing is there.
    ///
    /// # Errors
    /// What the store said.
    pub fn changed(&self, path: &str) -> Result<Option<DateTime<Utc>>> {
        match std::fs::symlink_metadata(self.folder.join(path)) {
            // A time beyond every calendar is as old as can be.
            Ok(meta) => Ok(Some(DateTime::from_timestamp(meta.mtime(), 0).unwrap_or_default())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(format!("could not look at \"{}\"", self.display(path)), &e)),
        }
    }

    /// Writes an object whole and durably, replacing any other.
    ///
    /// # Errors
    /// What the store said.
    pub fn put(&self, path: &str, bytes: impl Into<Bytes>) -> Result<()> {
        let location = self.location(path)?;
        let payload = PutPayload::from_bytes(bytes.into());
        let large = payload.content_length() >= LARGE;
        block_on(self.store.put(&location, payload)).map_err(|e| self.error("write", path, &e))?;
        self.forget(path, large);
        Ok(())
    }

    /// Writes an object durably unless there is one; says whether it did.
    ///
    /// # Errors
    /// What the store said.
    pub fn create(&self, path: &str, bytes: impl Into<Bytes>) -> Result<bool> {
        let location = self.location(path)?;
        let payload = PutPayload::from_bytes(bytes.into());
        let large = payload.content_length() >= LARGE;
        match block_on(self.store.put_opts(&location, payload, PutMode::Create.into())) {
            Ok(_) => {
                self.forget(path, large);
                Ok(true)
            }
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(e) => Err(self.error("write", path, &e)),
        }
    }

    /// Drops what reads of an object left in the page cache: the kernel reads ahead, also of what is done already.
    pub fn read_whole(&self, path: &str) {
        page_cache::drop_written(&self.folder.join(path));
    }

    /// What is read again and again is small.
    fn forget(&self, path: &str, large: bool) {
        if large {
            page_cache::drop_written(&self.folder.join(path));
        }
    }

    /// Removes an object; absent is fine.
    ///
    /// # Errors
    /// What the store said.
    pub fn delete(&self, path: &str) -> Result<()> {
        match block_on(self.store.delete(&self.location(path)?)) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.error("remove", path, &e)),
        }
    }

    /// Names of the folders directly below `prefix` (`""`: the root), sorted. A folder that is not there has none.
    ///
    /// # Errors
    /// What the store said.
    pub fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        self.names(prefix, true)
    }

    /// Paths of the objects directly in `prefix`, sorted. A folder that is not there has none.
    ///
    /// # Errors
    /// What the store said.
    pub fn files(&self, prefix: &str) -> Result<Vec<String>> {
        Ok(self.names(prefix, false)?.into_iter().map(|name| format!("{prefix}/{name}")).collect())
    }

    /// Names alone, without a look at each file: an archive holds millions. Staging files of unfinished uploads
    /// ("name#1") are hidden, as in [`Storage::list`].
    fn names(&self, prefix: &str, folders: bool) -> Result<Vec<String>> {
        self.location(prefix)?;
        let folder = self.folder.join(prefix);
        let failed = |e: std::io::Error| Error::io(format!("could not list \"{}\"", folder.display()), &e);
        let entries = match self.pass("names", &folder).and_then(|()| std::fs::read_dir(&folder)) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                self.no_lost_link(&folder)?;
                return Ok(Vec::new());
            }
            Err(e) => return Err(failed(e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_folder = match kind.is_symlink() {
                // What a link leads to may be out of reach: that is not the same as not there.
                true => match std::fs::metadata(entry.path()) {
                    Ok(meta) => meta.is_dir(),
                    Err(e) if layout::may_hold(prefix, &name) => return Err(lost_link(&entry.path(), &e)),
                    Err(_) => false,
                },
                false => kind.is_dir(),
            };
            if is_folder == folders && (is_folder || !is_staged(&name)) {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Fails when a place in the repository is not there because a link on the way to it leads nowhere.
    fn no_lost_link(&self, folder: &std::path::Path) -> Result<()> {
        for place in folder.ancestors().take_while(|place| *place != self.folder) {
            if std::fs::symlink_metadata(place).is_ok_and(|meta| meta.is_symlink()) {
                std::fs::metadata(place).map_err(|e| lost_link(place, &e))?;
            }
        }
        Ok(())
    }

    /// Refuses what the store would wait for or choke on: who opens a fifo waits for its writer for ever.
    fn refuse_special(&self, path: &str) -> Result<()> {
        // What cannot be looked at the store reports itself.
        let Ok(meta) = std::fs::metadata(self.folder.join(path)) else { return Ok(()) };
        let why = match meta.is_file() || meta.is_dir() {
            false => "it is neither a file nor a folder",
            true if meta.mtime().unsigned_abs() > LAST_SECOND => "its time is beyond every calendar",
            true => return Ok(()),
        };
        Err(Error::new(ErrorKind::Corrupt, format!("\"{}\" is no object: {why}", self.display(path)))
            .hint("No backup program stores such a thing: look who put it there, and remove it."))
    }

    /// Objects below `prefix`, sorted by path. No link is followed: it may lead out of the repository.
    ///
    /// # Errors
    /// What the store said.
    pub fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        let folder = self.folder.join(prefix);
        let mut objects = Vec::new();
        for entry in self.walk("list", &folder)? {
            let path = self.below(entry.path());
            if let Some(path) = path.filter(|_| !is_staged(&entry.file_name().to_string_lossy())) {
                let size = entry.metadata().map_or(0, |meta| meta.len());
                objects.push(Object { path, size });
            }
        }
        objects.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(objects)
    }

    /// Everything below a folder but folders. No link is followed.
    pub(super) fn walk(&self, call: &str, folder: &std::path::Path) -> Result<Vec<walkdir::DirEntry>> {
        let failed = |e: std::io::Error| Error::io(format!("could not list \"{}\"", folder.display()), &e);
        self.pass(call, folder).map_err(failed)?;
        let mut found = Vec::new();
        for entry in walkdir::WalkDir::new(folder).min_depth(1) {
            match entry.map_err(std::io::Error::from) {
                Ok(entry) if entry.file_type().is_dir() => {}
                Ok(entry) => found.push(entry),
                // It was not there, or is no more.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed(e)),
            }
        }
        Ok(found)
    }

    /// The path that an object in the repository's folder has; `None` for a name that no object has.
    pub(super) fn below(&self, path: &std::path::Path) -> Option<String> {
        let below = path.strip_prefix(&self.folder).ok()?.to_str()?;
        self.location(below).ok().map(|_| below.to_string())
    }

    /// Begins an object that is written in pieces and appears, durable, only when it is finished.
    ///
    /// # Errors
    /// What the store said.
    pub fn upload(&self, path: &str) -> Result<Upload> {
        let location = self.location(path)?;
        let inner =
            block_on(self.store.put_multipart(&location)).map_err(|e| self.error("create", path, &e))?;
        Ok(Upload {
            storage: self.clone(),
            path: path.to_string(),
            inner,
            pending: Vec::new(),
            pending_bytes: 0,
            small: Vec::new(),
            size: 0,
            crc: 0,
            behind: Behind::new(self.folder.join(path)),
        })
    }

    /// Whether a link stands at `path`: what it leads to may be anybody's.
    pub fn is_link(&self, path: &str) -> bool {
        std::fs::symlink_metadata(self.folder.join(path)).is_ok_and(|meta| meta.is_symlink())
    }

    /// Makes the folder `prefix` durable, with every folder above it up to the repository's own. The local store syncs
    /// the folders that it makes itself; those that another writer has just made, or made before it was killed, it
    /// takes for durable.
    ///
    /// # Errors
    /// When a folder cannot be opened or synced.
    pub fn sync_folders(&self, prefix: &str) -> Result<()> {
        let mut folder = self.folder.join(prefix);
        loop {
            self.pass("sync", &folder)
                .and_then(|()| std::fs::File::open(&folder)?.sync_all())
                .map_err(|e| Error::io(format!("could not sync \"{}\"", folder.display()), &e))?;
            if folder == self.folder || !folder.pop() {
                return Ok(());
            }
        }
    }

    fn location(&self, path: &str) -> Result<Path> {
        let folder = self.folder.to_str().ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, "the repository's path is not valid UTF-8")
        })?;
        let full = format!("{}/{path}", folder.trim_end_matches('/'));
        Path::parse(&full).map_err(|e| {
            Error::new(ErrorKind::InvalidArgument, format!("\"{full}\" cannot be a path in a repository"))
                .detail(e)
        })
    }

    fn error(&self, verb: &str, path: &str, error: &object_store::Error) -> Error {
        let what = format!("could not {verb} \"{}\"", self.display(path));
        let mut source: Option<&dyn std::error::Error> = Some(error);
        while let Some(e) = source {
            if let Some(io) = e.downcast_ref::<std::io::Error>() {
                return Error::io(what, io);
            }
            source = e.source();
        }
        let kind = match error {
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                ErrorKind::PermissionDenied
            }
            _ => ErrorKind::Io,
        };
        Error::new(kind, what).detail(error)
    }
}

/// An object that is being written. Dropped before [`Upload::finish`], it leaves nothing behind.
pub struct Upload {
    storage: Storage,
    path: String,
    inner: Box<dyn MultipartUpload>,
    pending: Vec<Bytes>,
    pending_bytes: usize,
    small: Vec<u8>,
    size: u64,
    crc: u32,
    behind: Behind,
}

/// What [`Upload::finish`] stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Path below the repository's root.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// CRC-32C of the whole object.
    pub crc32c: u32,
}

impl Upload {
    /// Bytes appended so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends bytes whose CRC-32C is already known.
    ///
    /// # Errors
    /// What the store said.
    pub fn append_with_crc(&mut self, bytes: Bytes, crc: u32) -> Result<()> {
        // Combining takes as long as hashing half a megabyte.
        self.crc = match (self.size, bytes.len()) {
            (0, _) => crc,
            (_, len) if len > 1 << 20 => crc32c::crc32c_combine(self.crc, crc, len),
            _ => crc32c::crc32c_append(self.crc, &bytes),
        };
        self.size += bytes.len() as u64;
        self.pending_bytes += bytes.len();
        self.pending.push(bytes);
        if self.pending_bytes >= PART_SIZE { self.write_part() } else { Ok(()) }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// What the store said.
    pub fn append(&mut self, bytes: impl Into<Bytes>) -> Result<()> {
        self.flush_small()?;
        self.append_large(bytes.into())
    }

    fn append_large(&mut self, bytes: Bytes) -> Result<()> {
        let crc = crc32c::crc32c(&bytes);
        self.append_with_crc(bytes, crc)
    }

    /// Appends a few bytes, collected in one buffer with those before.
    ///
    /// # Errors
    /// What the store said.
    pub fn append_small(&mut self, bytes: &[u8]) -> Result<()> {
        self.small.extend_from_slice(bytes);
        if self.small.len() >= SMALL_SIZE { self.flush_small() } else { Ok(()) }
    }

    fn flush_small(&mut self) -> Result<()> {
        if self.small.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::replace(&mut self.small, Vec::with_capacity(SMALL_SIZE));
        self.append_large(Bytes::from(bytes))
    }

    /// Makes the object durable and visible.
    ///
    /// # Errors
    /// What the store said; the object then does not exist.
    pub fn finish(mut self) -> Result<Stored> {
        self.flush_small()?;
        if !self.pending.is_empty() {
            self.write_part()?;
        }
        block_on(self.inner.complete()).map_err(|e| self.storage.error("write", &self.path, &e))?;
        if self.size >= LARGE as u64 {
            self.behind.finished();
        }
        Ok(Stored { path: self.path, size: self.size, crc32c: self.crc })
    }

    fn write_part(&mut self) -> Result<()> {
        let payload: PutPayload = std::mem::take(&mut self.pending).into_iter().collect();
        self.pending_bytes = 0;
        block_on(self.inner.put_part(payload)).map_err(|e| self.storage.error("write", &self.path, &e))?;
        self.behind.reached(self.size);
        Ok(())
    }
}

impl std::io::Write for Upload {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.append_small(buf).map_err(std::io::Error::other)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Whether the local store is still writing the file, or died while it did.
pub(super) fn is_staged(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn lost_link(path: &std::path::Path, e: &std::io::Error) -> Error {
    Error::io(format!("could not follow the link \"{}\"", path.display()), e)
        .hint("What it leads to is not there: mount it, or mend the link.")
}

fn local_store() -> Arc<dyn ObjectStore> {
    Arc::new(LocalFileSystem::new().with_fsync(true))
}

fn unusable(what: String, e: &std::io::Error) -> Error {
    let error = Error::io(what, e);
    match error.kind {
        ErrorKind::Io => Error { kind: ErrorKind::RepositoryUnusable, ..error }
            .hint("Name a folder that exists, or one whose parent folder does; best on another disk."),
        _ => error,
    }
}

/// The folder that a `file://` URL names.
fn local_folder(url: &str) -> Result<PathBuf> {
    const EXAMPLE: &str = "Write it as file:///absolute/path, for example file:///backups.";
    let bad = |why: &str| {
        Error::new(ErrorKind::InvalidArgument, format!("invalid repository URL \"{url}\": {why}"))
            .hint(EXAMPLE)
    };
    if url.is_empty() {
        return Err(Error::new(ErrorKind::RepositoryUnset, "no repository is configured")
            .hint("Call ark.enable('file:///path'), or give --repo or PGARK_REPO to pgark."));
    }
    let parsed = url::Url::parse(url).map_err(|e| bad(&e.to_string()))?;
    match parsed.scheme() {
        "file" => {}
        "s3" | "gs" | "gcs" | "az" | "azure" | "http" | "https" => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("repository URL \"{url}\": object stores are not supported by this version"),
            )
            .hint(EXAMPLE));
        }
        other => return Err(bad(&format!("there is no scheme \"{other}\""))),
    }
    if !url.starts_with("file:///") || parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(bad("it must name an absolute path and nothing else"));
    }
    let path = parsed.to_file_path().map_err(|()| bad("it names no local path"))?;
    if path.parent().is_none() {
        return Err(bad("the root folder cannot be a repository"));
    }
    if path.to_str().is_none() {
        return Err(bad("the path is not valid UTF-8"));
    }
    // Without doubled slashes, which would be empty names.
    Ok(path.components().collect())
}

#[cfg(test)]
#[path = "storage_tests.rs"]
mod tests;
