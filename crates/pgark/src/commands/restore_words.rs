//! Words that the texts of every kind of restore share.

use pg_ark_contract::units::human_bytes;
use pg_ark_engine::restore::access::Access;
use pg_ark_engine::restore::check::Filesystem;
use pg_ark_engine::restore::config::{self, ConfigPlan};
use pg_ark_engine::restore::facts::State;
use std::path::Path;

/// What a copy is left without.
pub const NO_REPOSITORY: &str = "It neither archives nor knows a repository, lest it act in the original's name: the block marked \"pg_ark copy\" in postgresql.auto.conf says so. Before it is backed up, set another pg_ark.cluster in it; then call ark.enable.";

/// What becomes of what stands at the data directory's place.
pub fn state_text(state: &State) -> &'static str {
    match state {
        State::Absent => "to be created",
        State::NotEmpty(_) => "to be replaced",
        _ => "an empty folder",
    }
}

/// Who will own it, where that is not whoever restores.
pub fn owner_text(access: &Access) -> Option<String> {
    access.owner.as_ref().map(|owner| match &owner.user {
        Some(name) => name.clone(),
        None => owner.uid.to_string(),
    })
}

/// What is needed and free.
pub fn space_text(filesystems: &[Filesystem]) -> String {
    let free = |f: &Filesystem| {
        let folders: Vec<String> = f.folders.iter().map(|path| path.display().to_string()).collect();
        format!(
            "{} of {} free at {}",
            human_bytes(f.needed_bytes),
            human_bytes(f.free_bytes),
            folders.join(", ")
        )
    };
    filesystems.iter().map(free).collect::<Vec<_>>().join("; ")
}

/// What becomes of a configuration file.
pub fn config_text(file: &config::ConfigFile) -> String {
    let action = match file.action {
        config::Action::Write if file.from == file.to => "written",
        config::Action::Write => "written, from the backup's",
        config::Action::Same => "there already, equal",
        config::Action::KeepOther => "another one is there, which is kept",
    };
    let from = if file.from == file.to { String::new() } else { format!(" {}", file.from.display()) };
    format!("{}: {action}{from}", file.to.display())
}

/// The command that starts the server, and who runs it.
pub fn start_command(bindir: Option<&Path>, data: &Path, config: &ConfigPlan, access: &Access) -> String {
    let mut command = match bindir {
        Some(bindir) => format!("{}/pg_ctl", bindir.display()),
        None => "pg_ctl".to_string(),
    };
    command.push_str(&format!(" start -D {}", quoted(&data.display().to_string())));
    if let Some(main) = &config.main {
        command.push_str(&format!(
            " -o {}",
            quoted(&format!("-c config_file={}", quoted(&main.display().to_string())))
        ));
    }
    let user = access.owner.as_ref().and_then(|owner| owner.user.as_deref());
    let user = user.map_or_else(String::new, |name| format!(" as {name}"));
    format!("Start it{user}: {command}")
}

/// The command that connects to a server, by its socket where it has one.
pub fn connect_command(socket_folder: &str, port: u16) -> String {
    let host = if socket_folder.is_empty() { "localhost" } else { socket_folder };
    format!("psql -h {} -p {port} postgres", quoted(host))
}

/// A word for the shell.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=+:".contains(c);
    if text.chars().all(plain) { text.to_string() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_the_shell() {
        assert_eq!(quoted("/a/b"), "/a/b");
        assert_eq!(quoted("/a b"), "'/a b'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }
}
