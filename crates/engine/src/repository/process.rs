//! Which process of which machine wrote something, and whether it is still there.
//!
//! What: a process is named by machine, process ID and start time. On the same machine it can be looked for; on another
//! nobody can.
//! Why: a process ID alone is soon another's, and a host's name is the same for two containers.

/// What is known about a process that wrote something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It works.
    Alive,
    /// It is gone.
    Dead,
    /// It is on another machine, where nobody can look.
    Elsewhere,
}

/// Machine and start time of the process `pid`, in clock ticks since boot: together with `pid` they name it. The machine
/// is empty when they name none.
pub fn identity(pid: u32) -> (String, u64) {
    match process_start(pid).filter(|_| sees_itself()) {
        Some(start) => (machine(), start),
        None => (String::new(), 0),
    }
}

/// What can be known from here about the process that [`identity`] named.
pub fn life(its_machine: &str, pid: u32, start: u64) -> Life {
    if !is_here(its_machine) || !sees_itself() {
        return Life::Elsewhere;
    }
    match process_start(pid) {
        Some(found) if found == start => Life::Alive,
        Some(_) => Life::Dead,
        // /proc may hide the processes of others (hidepid).
        None if exists(pid) => Life::Elsewhere,
        None => Life::Dead,
    }
}

/// Whether that machine is this one, as it runs now.
pub fn is_here(its_machine: &str) -> bool {
    !its_machine.is_empty() && its_machine == machine()
}

/// The machine's name.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Boot, process namespace and name: two processes that agree on it see the same process IDs. The name is there since
/// virtual machines that are cloned while they run share the rest. Empty when a part is not known.
fn machine() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let namespace = std::fs::read_link("/proc/self/ns/pid");
    machine_of(boot.as_deref().unwrap_or_default(), &namespace.unwrap_or_default(), &host_name())
}

pub(super) fn machine_of(boot: &str, namespace: &std::path::Path, host: &str) -> String {
    if boot.trim().is_empty() || namespace.as_os_str().is_empty() {
        return String::new();
    }
    format!("{}/{}/{host}", boot.trim(), namespace.display())
}

/// Whether /proc shows the processes that this one sees: a new process namespace may have been given the old /proc.
fn sees_itself() -> bool {
    let link = std::fs::read_link("/proc/self").unwrap_or_default();
    link.to_str() == Some(std::process::id().to_string().as_str())
}

/// Whether there is a process `pid`, of any user.
fn exists(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| {
        rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH) && !is_zombie(pid)
    })
}

fn is_zombie(pid: rustix::process::Pid) -> bool {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    std::fs::read_to_string(path).is_ok_and(|stat| state_and_start(&stat).is_some_and(|(dead, _)| dead))
}

/// Start time of a process in clock ticks since boot (field 22 of /proc/PID/stat); `None` when it is gone or a zombie.
fn process_start(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    state_and_start(&stat).filter(|(dead, _)| !dead).map(|(_, start)| start)
}

/// Whether a process is gone but for its name, and when it began (fields 3, 20 and 22, proc_pid_stat(5)). The first thread of
/// one that was killed is a zombie while another still ends what it asked the kernel for: a write, a rename.
fn state_and_start(stat: &str) -> Option<(bool, u64)> {
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_ascii_whitespace();
    let zombie = matches!(fields.next()?, "Z" | "X");
    let threads: u64 = fields.nth(16)?.parse().ok()?;
    Some((zombie && threads <= 1, fields.nth(1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_living_thread_is_not_dead() {
        let stat = |state: &str, threads: u32| {
            format!("7 (a) b) {state} 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 {threads} 0 4711 99")
        };
        assert_eq!(state_and_start(&stat("S", 3)), Some((false, 4711)));
        assert_eq!(state_and_start(&stat("Z", 2)), Some((false, 4711)));
        assert_eq!(state_and_start(&stat("Z", 1)), Some((true, 4711)));
        assert_eq!(state_and_start(&stat("X", 0)), Some((true, 4711)));
        assert_eq!(state_and_start("7 (a"), None);
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        assert_eq!(state_and_start(&own).map(|(dead, start)| (dead, start > 0)), Some((false, true)));
        let real = std::process::id();
        assert_eq!(process_start(real), state_and_start(&own).map(|(_, start)| start));
    }
}
