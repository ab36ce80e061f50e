//! What a disk holds after a loss of power, by replaying what a program asked of the system.
//!
//! [`Disk`] models files and folders twice: as programs see them, and as far as they were made durable. An fsync of a
//! file keeps its content, an fsync of a folder its names, syncfs everything; each covers what was there when the call
//! was entered. [`Disk::after`] builds what a power failure may legally leave ([`Loss`]). Owners and modes are not modelled.
//!
//! *Moment*: a place in the replay at which the power may fail; all that can differ does so right after a sync, a name
//! or an acknowledgement.

use crate::chance::Chance;
use crate::os::chown_tree_to_server;
use crate::strace::{Call, Event, Trace};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Calls that a replay needs to know.
pub const CALLS: &str = "open,openat,creat,close,dup,dup2,dup3,fcntl,lseek,read,write,writev,pwrite64,pwritev,pwritev2,\
    ftruncate,truncate,fallocate,copy_file_range,sendfile,splice,rename,renameat,renameat2,link,linkat,symlink,symlinkat,\
    unlink,unlinkat,rmdir,mkdir,mkdirat,fsync,fdatasync,sync,syncfs,msync,clone,clone3,fork,vfork,exit_group";

/// Content of a file.
pub type Content = Rc<Vec<u8>>;

/// What a power failure takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// All that was not synced: content and names.
    Everything,
    /// Content alone: names reached the disk in their order, as on a journal of metadata. Files are empty.
    Content,
    /// The same; files have their length and hold zeros.
    ContentToZeros,
    /// Names alone.
    Names,
    /// This and that, by chance.
    Some,
}

impl Loss {
    /// Every kind.
    pub const ALL: [Loss; 5] =
        [Loss::Everything, Loss::Content, Loss::ContentToZeros, Loss::Names, Loss::Some];
}

/// Why the power might fail here.
#[derive(Debug, Clone)]
pub enum Moment<'a> {
    /// This call returned: it made something durable, or changed names.
    Call(&'a Call),
    /// The program is about to say this on its standard output.
    Says(Vec<u8>),
    /// The program is about to end with this exit code.
    Ends(i32),
}

/// What a folder holds after a loss, by path: `None` is a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image(pub BTreeMap<PathBuf, Option<Content>>);

type Number = usize;

/// Names in a folder.
type Names = BTreeMap<OsString, Number>;

#[derive(Debug, Clone)]
enum Node {
    File {
        now: Content,
        kept: Content,
    },
    Folder {
        now: Names,
        kept: Names,
    },
    /// What it leads to is not modelled.
    Link,
}

/// An open file: its node, and where the next write goes.
#[derive(Debug, Clone, Copy)]
struct Open {
    node: Number,
    offset: u64,
    appends: bool,
}

/// Files and folders below one folder.
#[derive(Debug, Clone)]
pub struct Disk {
    root: PathBuf,
    nodes: Vec<Node>,
}

impl Disk {
    /// What a folder holds now; all of it is durable.
    ///
    /// # Panics
    /// When something in it cannot be read.
    #[track_caller]
    pub fn load(root: &Path) -> Disk {
        let mut disk = Disk { root: root.to_path_buf(), nodes: Vec::new() };
        disk.load_node(root);
        disk
    }

    fn load_node(&mut self, path: &Path) -> Number {
        let number = self.nodes.len();
        let kind = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{path:?}: {e}")).file_type();
        if kind.is_dir() {
            self.nodes.push(Node::Link);
            let entries = fs::read_dir(path).unwrap_or_else(|e| panic!("{path:?}: {e}")).flatten();
            let names: Names =
                entries.map(|entry| (entry.file_name(), self.load_node(&entry.path()))).collect();
            self.nodes[number] = Node::Folder { now: names.clone(), kept: names };
        } else if kind.is_symlink() {
            self.nodes.push(Node::Link);
        } else {
            let content: Content = Rc::new(fs::read(path).unwrap_or_else(|e| panic!("{path:?}: {e}")));
            self.nodes.push(Node::File { now: Rc::clone(&content), kept: content });
        }
        number
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What programs see.
    pub fn now(&self) -> Image {
        self.image(&mut |now, _| now.clone(), &mut |now, _| Some(Rc::clone(now)))
    }

    /// What is left when the power fails now. Chance is asked for [`Loss::Some`] alone.
    pub fn after(&self, loss: Loss, chance: &mut Chance) -> Image {
        let chance = std::cell::RefCell::new(chance);
        let below = |limit: u64| chance.borrow_mut().below(limit);
        let mut names = |now: &Names, kept: &Names| match loss {
            Loss::Everything | Loss::Names => kept.clone(),
            Loss::Content | Loss::ContentToZeros => now.clone(),
            Loss::Some => {
                let all: std::collections::BTreeSet<&OsString> = now.keys().chain(kept.keys()).collect();
                let pick = |name: &OsString| if below(2) == 0 { kept.get(name) } else { now.get(name) };
                all.into_iter().filter_map(|name| Some((name.clone(), *pick(name)?))).collect()
            }
        };
        let zeros = |content: &Content| Rc::new(vec![0; content.len()]);
        let mut content = |now: &Content, kept: &Content| {
            let changed = !Rc::ptr_eq(now, kept);
            Some(match loss {
                _ if !changed => Rc::clone(now),
                Loss::Names => Rc::clone(now),
                Loss::Everything | Loss::Content => Rc::clone(kept),
                Loss::ContentToZeros => zeros(now),
                Loss::Some => {
                    let (kind, length) = (below(4), below(now.len() as u64) as usize);
                    match kind {
                        0 => Rc::clone(kept),
                        1 => Rc::clone(now),
                        2 => zeros(now),
                        _ => Rc::new(now[..length].to_vec()),
                    }
                }
            })
        };
        self.image(&mut names, &mut content)
    }

    fn image(
        &self,
        names: &mut dyn FnMut(&Names, &Names) -> Names,
        content: &mut dyn FnMut(&Content, &Content) -> Option<Content>,
    ) -> Image {
        let mut image = Image::default();
        let mut open = vec![(PathBuf::new(), 0)];
        while let Some((path, number)) = open.pop() {
            match &self.nodes[number] {
                Node::Folder { now, kept } => {
                    let inside = names(now, kept);
                    open.extend(inside.into_iter().map(|(name, number)| (path.join(name), number)));
                    image.0.insert(path, None);
                }
                Node::File { now, kept } => drop(image.0.insert(path, content(now, kept))),
                // Links are few, and made by nobody whose durability is in question here.
                Node::Link => {}
            }
        }
        image
    }

    /// Number of the node at a path, as programs see it.
    fn find(&self, path: &Path) -> Option<Number> {
        let below = path.strip_prefix(&self.root).ok()?;
        below.components().try_fold(0, |number, part| match &self.nodes[number] {
            Node::Folder { now, .. } => now.get(part.as_os_str()).copied(),
            _ => None,
        })
    }

    /// Names in the folder that a path is in, and the last part of the path.
    fn parent(&mut self, path: &Path) -> Option<(&mut Names, OsString)> {
        let number = self.find(path.parent()?)?;
        let name = path.file_name().map(OsStr::to_os_string)?;
        match &mut self.nodes[number] {
            Node::Folder { now, .. } => Some((now, name)),
            _ => None,
        }
    }

    /// Makes a node and names it; nothing happens outside the root.
    fn create(&mut self, path: &Path, node: Node) -> Option<Number> {
        let number = self.nodes.len();
        let (names, name) = self.parent(path)?;
        names.insert(name, number);
        self.nodes.push(node);
        Some(number)
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        let moved = self.parent(from).and_then(|(names, name)| names.remove(&name));
        if let (Some(number), Some((names, name))) = (moved, self.parent(to)) {
            names.insert(name, number);
        }
    }

    fn link(&mut self, from: &Path, to: &Path) {
        if let (Some(number), Some((names, name))) = (self.find(from), self.parent(to)) {
            names.insert(name, number);
        }
    }

    fn unlink(&mut self, path: &Path) {
        if let Some((names, name)) = self.parent(path) {
            names.remove(&name);
        }
    }

    fn write(&mut self, node: Number, offset: u64, bytes: &[u8]) {
        let Node::File { now, .. } = &mut self.nodes[node] else { return };
        let now = Rc::make_mut(now);
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        if now.len() < end {
            now.resize(end, 0);
        }
        now[start..end].copy_from_slice(bytes);
    }

    fn truncate(&mut self, node: Number, length: usize) {
        if let Node::File { now, .. } = &mut self.nodes[node] {
            Rc::make_mut(now).resize(length, 0);
        }
    }

    fn len(&self, node: Number) -> u64 {
        match &self.nodes[node] {
            Node::File { now, .. } => now.len() as u64,
            _ => 0,
        }
    }

    /// What a sync of these nodes, entered now, will keep.
    fn snapshot(&self, nodes: impl Iterator<Item = Number>) -> Vec<(Number, Node)> {
        nodes.map(|number| (number, self.nodes[number].clone())).collect()
    }

    fn keep(&mut self, snapshot: Vec<(Number, Node)>) {
        for (number, then) in snapshot {
            match (&mut self.nodes[number], then) {
                (Node::File { kept, .. }, Node::File { now, .. }) => *kept = now,
                (Node::Folder { kept, .. }, Node::Folder { now, .. }) => *kept = now,
                _ => {}
            }
        }
    }

    /// Lets a program do again what it did, and tells each moment at which the power may fail.
    ///
    /// # Panics
    /// When it changed the folder by a call that is not modelled.
    #[track_caller]
    pub fn replay(&mut self, trace: &Trace, at: &mut dyn FnMut(&Disk, Moment<'_>)) {
        let first = trace.calls.first().map(|call| call.thread);
        let mut replay = Replay { first, groups: groups(trace), open: HashMap::new(), syncs: HashMap::new() };
        for event in &trace.events {
            match *event {
                Event::Entered(number) => replay.entered(self, number, &trace.calls[number], at),
                Event::Returned(number) => {
                    let call = &trace.calls[number];
                    if call.succeeded() && replay.returned(self, number, call) {
                        at(self, Moment::Call(call));
                    }
                }
                Event::Ended { .. } => {}
            }
        }
    }
}

/// Which process a thread belongs to: its first thread.
fn groups(trace: &Trace) -> HashMap<u32, u32> {
    let mut groups = HashMap::new();
    for call in &trace.calls {
        let Some(child) = call.result.filter(|result| *result > 0) else { continue };
        let text = call.arguments.concat();
        let is_thread = text.windows(12).any(|part| part == b"CLONE_THREAD");
        if call.name.starts_with("clone") && is_thread {
            let parent = *groups.get(&call.thread).unwrap_or(&call.thread);
            groups.insert(child as u32, parent);
        }
    }
    groups
}

struct Replay {
    first: Option<u32>,
    groups: HashMap<u32, u32>,
    open: HashMap<(u32, i64), Open>,
    syncs: HashMap<usize, Vec<(Number, Node)>>,
}

impl Replay {
    fn group(&self, call: &Call) -> u32 {
        *self.groups.get(&call.thread).unwrap_or(&call.thread)
    }

    fn descriptor(&self, call: &Call, argument: usize) -> Option<(u32, i64)> {
        Some((self.group(call), call.number(argument)?))
    }

    fn entered(
        &mut self,
        disk: &mut Disk,
        number: usize,
        call: &Call,
        at: &mut dyn FnMut(&Disk, Moment<'_>),
    ) {
        match call.name.as_str() {
            // Another thread may use the folder before this one sees that it is made.
            "mkdir" if call.succeeded() => {
                name(call.path(None, 0), |path| disk.create(path, folder()));
            }
            "mkdirat" if call.succeeded() => {
                name(call.path(Some(0), 1), |path| disk.create(path, folder()));
            }
            "fsync" | "fdatasync" => {
                let node = call.path_of(0).and_then(|path| disk.find(&path));
                self.syncs.insert(number, disk.snapshot(node.into_iter()));
            }
            // Another thread may be given the same number before this one sees that it is free.
            "close" => drop(self.descriptor(call, 0).and_then(|key| self.open.remove(&key))),
            "syncfs" | "sync" => drop(self.syncs.insert(number, disk.snapshot(0..disk.nodes.len()))),
            "write" if call.number(0) == Some(1) => {
                at(disk, Moment::Says(call.text(1).expect("all that was said")));
            }
            "exit_group" if Some(self.group(call)) == self.first => {
                at(disk, Moment::Ends(call.number(0).unwrap_or(-1) as i32));
            }
            _ => {}
        }
    }

    /// Does what a call did; says whether what a power failure leaves may differ from now on.
    fn returned(&mut self, disk: &mut Disk, number: usize, call: &Call) -> bool {
        match call.name.as_str() {
            "fsync" | "fdatasync" | "syncfs" | "sync" => {
                let snapshot = self.syncs.remove(&number).unwrap_or_default();
                let any = !snapshot.is_empty();
                disk.keep(snapshot);
                any
            }
            "open" => self.opened(disk, call, call.path(None, 0), 1),
            "creat" => self.opened(disk, call, call.path(None, 0), usize::MAX),
            "openat" => self.opened(disk, call, call.path(Some(0), 1), 2),
            "rename" => names(call.path(None, 0), call.path(None, 1), |from, to| disk.rename(from, to)),
            "renameat" | "renameat2" => {
                names(call.path(Some(0), 1), call.path(Some(2), 3), |from, to| disk.rename(from, to))
            }
            "link" => names(call.path(None, 0), call.path(None, 1), |from, to| disk.link(from, to)),
            "linkat" => names(call.path(Some(0), 1), call.path(Some(2), 3), |from, to| disk.link(from, to)),
            "unlink" | "rmdir" => name(call.path(None, 0), |path| disk.unlink(path)),
            "unlinkat" => name(call.path(Some(0), 1), |path| disk.unlink(path)),
            "mkdir" | "mkdirat" => true,
            "symlink" | "symlinkat" => {
                let place = if call.name == "symlink" { call.path(None, 1) } else { call.path(Some(1), 2) };
                name(place, |path| disk.create(path, Node::Link))
            }
            _ => self.moved_or_written(disk, call),
        }
    }

    fn opened(&mut self, disk: &mut Disk, call: &Call, path: Option<PathBuf>, flags: usize) -> bool {
        let (Some(path), Some(descriptor)) = (path, call.result) else { return false };
        let key = (self.group(call), descriptor);
        self.open.remove(&key);
        let flags = match flags {
            usize::MAX => "O_CREAT|O_TRUNC".into(),
            number => String::from_utf8_lossy(call.argument(number)).into_owned(),
        };
        let has = |flag: &str| flags.split('|').any(|part| part == flag);
        let found = disk.find(&path);
        let created = found.is_none() && has("O_CREAT");
        let empty = || Node::File { now: Content::default(), kept: Content::default() };
        let node = if created { disk.create(&path, empty()) } else { found };
        let Some(node) = node else { return false };
        if has("O_TRUNC") {
            disk.truncate(node, 0);
        }
        self.open.insert(key, Open { node, offset: 0, appends: has("O_APPEND") });
        created
    }

    fn moved_or_written(&mut self, disk: &mut Disk, call: &Call) -> bool {
        let Some(key) = self.descriptor(call, 0) else { return false };
        match call.name.as_str() {
            "dup" | "dup2" | "dup3" => self.duplicated(call, key),
            "fcntl" if call.argument(1).starts_with(b"F_DUPFD") => self.duplicated(call, key),
            _ => {}
        }
        let Some(open) = self.open.get_mut(&key) else { return false };
        let result = call.result.unwrap_or(0) as u64;
        match call.name.as_str() {
            "lseek" => open.offset = result,
            "read" => open.offset += result,
            "write" => {
                let start = if open.appends { disk.len(open.node) } else { open.offset };
                open.offset = start + result;
                let bytes = call.text(1).expect("all that was written");
                disk.write(open.node, start, &bytes[..result as usize]);
            }
            "pwrite64" => {
                let (bytes, start) =
                    (call.text(1).expect("all that was written"), call.number(3).expect("an offset"));
                disk.write(open.node, start as u64, &bytes[..result as usize]);
            }
            "ftruncate" => {
                let (node, length) = (open.node, call.number(1).expect("a length"));
                disk.truncate(node, length as usize);
            }
            "writev" | "pwritev" | "pwritev2" | "truncate" | "fallocate" | "copy_file_range" | "sendfile"
            | "splice" | "msync" => panic!("the model lacks {}: {:?}", call.name, call.paths()),
            _ => {}
        }
        false
    }

    /// Offsets are shared then; nobody here writes through both.
    fn duplicated(&mut self, call: &Call, key: (u32, i64)) {
        if let (Some(open), Some(copy)) = (self.open.get(&key).copied(), call.result) {
            self.open.insert((key.0, copy), open);
        }
    }
}

fn folder() -> Node {
    Node::Folder { now: BTreeMap::new(), kept: BTreeMap::new() }
}

fn name<T>(path: Option<PathBuf>, act: impl FnOnce(&Path) -> T) -> bool {
    path.map(|path| act(&path)).is_some()
}

fn names(from: Option<PathBuf>, to: Option<PathBuf>, act: impl FnOnce(&Path, &Path)) -> bool {
    from.zip(to).map(|(from, to)| act(&from, &to)).is_some()
}

impl Image {
    /// What is below a folder of it, by path below that.
    pub fn below(&self, folder: &Path) -> Image {
        let inside = self.0.iter().filter_map(|(path, what)| {
            let below = path.strip_prefix(folder).ok().filter(|below| !below.as_os_str().is_empty())?;
            Some((below.to_path_buf(), what.clone()))
        });
        Image(inside.collect())
    }

    /// Content of a file; `None` when there is no such file.
    pub fn file(&self, path: impl AsRef<Path>) -> Option<&[u8]> {
        self.0.get(path.as_ref()).and_then(Option::as_ref).map(|content| content.as_slice())
    }

    /// Writes it all into a folder, which is made, and belongs to the server's OS user.
    ///
    /// # Panics
    /// When that is not possible.
    #[track_caller]
    pub fn write(&self, to: &Path) {
        for (path, what) in &self.0 {
            let path = to.join(path);
            let written = match what {
                None => fs::DirBuilder::new().recursive(true).mode(0o700).create(&path),
                Some(content) => fs::write(&path, content.as_slice())
                    .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o600))),
            };
            written.unwrap_or_else(|e| panic!("{path:?}: {e}"));
        }
        chown_tree_to_server(to);
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
