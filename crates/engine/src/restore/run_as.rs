//! Runs programs as the owner of the server, and proves beforehand that recovery, which runs as that user, can.

use super::access::{Access, Owner};
use super::plan::Plan;
use super::recovery::NO_ARCHIVE;
use crate::wal::Archive;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A command that runs `program` in a session of its own, so that no signal for this terminal reaches it, and as the
/// owner with all groups the owner has (a key file may be readable by one of them alone).
///
/// # Errors
/// `PermissionDenied` when root runs this and there is no owner.
pub fn as_owner(program: &Path, access: &Access) -> Result<Command> {
    let mut words: Vec<std::ffi::OsString> = Vec::new();
    if tool("setsid") {
        words.push("setsid".into());
    }
    let root = rustix::process::geteuid().is_root();
    let owner = match &access.owner {
        Some(owner) if owner.uid != 0 => Some(owner),
        _ if root => {
            return Err(Error::new(ErrorKind::PermissionDenied, "a server cannot be run as root").hint(
                "The restore itself is complete. Give the files to the server's user and start it by hand.",
            ));
        }
        _ => None,
    };
    let with_tool = owner.filter(|owner| owner.user.is_some() && tool("setpriv"));
    if let Some(Owner { uid, gid, .. }) = with_tool {
        words.extend(["setpriv", "--init-groups", "--reset-env"].map(Into::into));
        words.extend([format!("--reuid={uid}"), format!("--regid={gid}"), "--".to_string()].map(Into::into));
    }
    let mut command = match words.split_first() {
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
        None => Command::new(program),
    };
    if let (None, Some(owner)) = (with_tool, owner) {
        command.uid(owner.uid).gid(owner.gid);
    }
    Ok(command)
}

fn tool(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// As root: whether the server's user can run the program that recovery asks for WAL, and read the archive.
///
/// # Errors
/// `PermissionDenied` when not; what the store said.
pub fn check(plan: &Plan, archive: &Archive) -> Result<()> {
    let owner = plan.access.owner.as_ref().filter(|owner| owner.uid != 0);
    let Some(owner) = owner.filter(|_| plan.recovery.restore_command != NO_ARCHIVE) else { return Ok(()) };
    let user = owner.user.clone().unwrap_or_else(|| owner.uid.to_string());
    if let Some(program) = &plan.recovery.program
        && !succeeds(as_owner(program, &plan.access)?.arg("--version"))
    {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            format!("the server's user {user} cannot run \"{}\", which recovery needs", program.display()),
        )
        .hint("Install pgark where that user can run it (beside postgres), and run the restore with that program."));
    }
    let object = match &plan.recovery.first_segment {
        Some(segment) => archive.find(segment)?.map(|found| found.path),
        None => None,
    };
    let path: PathBuf = archive.storage().folder().join(object.unwrap_or_else(|| archive.folder()));
    // An archive that is still empty may not be there at all.
    if path.exists() && !succeeds(as_owner(Path::new("test"), &plan.access)?.arg("-r").arg(&path)) {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            format!(
                "the server's user {user} cannot read the repository, which recovery needs: \"{}\"",
                path.display()
            ),
        )
        .hint(format!(
            "Give it to that user (chown -R {user}), and look at the permissions of every folder above it."
        )));
    }
    Ok(())
}

fn succeeds(command: &mut Command) -> bool {
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
