//! A repository folder.

use crate::os::Scratch;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A folder for a repository that belongs to the server's OS user and is removed when dropped.
#[derive(Debug)]
pub struct Repo {
    path: PathBuf,
    _scratch: Scratch,
}

impl Repo {
    /// An empty folder.
    pub fn new() -> Self {
        Self::named("repository")
    }

    /// An empty folder of this name, which may hold spaces and letters outside ASCII.
    pub fn named(name: &str) -> Self {
        let scratch = Scratch::new("repo");
        Repo { path: scratch.folder(name), _scratch: scratch }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its URL.
    pub fn url(&self) -> String {
        file_url(&self.path)
    }
}

impl Default for Repo {
    fn default() -> Self {
        Self::new()
    }
}

/// `file://` URL of an absolute path; bytes outside RFC 3986's unreserved set are percent-encoded.
pub fn file_url(path: &Path) -> String {
    let mut url = String::from("file://");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            write!(url, "%{byte:02X}").expect("writing to a string");
        }
    }
    url
}
