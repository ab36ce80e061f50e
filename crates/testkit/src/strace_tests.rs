use super::*;

const OUTPUT: &[u8] =
    br#"7 openat(AT_FDCWD</tmp>, "a#1", O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0666) = 3</tmp/a#1>
7 write(3</tmp/a#1>, "one, \"two\"\n\0\3777", 14) = 14
8 fsync(3</tmp/a#1> <unfinished ...>
7 write(3</tmp/a#1>, "x"..., 200 <unfinished ...>
8 <... fsync resumed>)               = -1 EIO (Input/output error) (INJECTED)
7 <... write resumed>)               = 200
7 renameat2(AT_FDCWD</tmp>, "a#1", AT_FDCWD</tmp>, "/x/b", RENAME_NOREPLACE) = 0
8 clone3({flags=CLONE_VM|CLONE_THREAD, stack=0x7f} => {parent_tid=[9]}, 88) = 9
8 +++ exited with 0 +++
7 exit_group(5)                     = ?
7 +++ killed by SIGKILL +++
"#;

#[test]
fn calls_and_their_order() {
    let trace = Trace::parse(OUTPUT);
    let names: Vec<&str> = trace.calls.iter().map(|call| call.name.as_str()).collect();
    assert_eq!(names, ["openat", "write", "fsync", "write", "renameat2", "clone3", "exit_group"]);
    assert_eq!(
        trace.events[4..8],
        [Event::Entered(2), Event::Entered(3), Event::Returned(2), Event::Returned(3)]
    );
    assert_eq!(trace.events.last(), Some(&Event::Ended { thread: 7, code: 137 }));
    let open = &trace.calls[0];
    assert_eq!(open.path(Some(0), 1), Some("/tmp/a#1".into()));
    assert_eq!(open.returned_path, Some("/tmp/a#1".into()));
    assert_eq!((open.result, open.thread), (Some(3), 7));
    let fsync = &trace.calls[2];
    assert!(fsync.injected && !fsync.succeeded());
    assert_eq!((fsync.error.as_deref(), fsync.path_of(0)), (Some("EIO"), Some("/tmp/a#1".into())));
    assert_eq!(trace.calls[4].path(Some(2), 3), Some("/x/b".into()));
    assert_eq!(trace.calls[5].result, Some(9));
    assert_eq!(trace.calls[6].result, None);
}

#[test]
fn text_is_decoded_and_never_taken_cut_off() {
    let trace = Trace::parse(OUTPUT);
    assert_eq!(trace.calls[1].text(1), Some(b"one, \"two\"\n\0\xff7".to_vec()));
    assert_eq!(trace.calls[3].text(1), None);
}

#[test]
fn a_real_program_is_understood() {
    let scratch = crate::Scratch::new("strace");
    let (log, file) = (scratch.path().join("log"), scratch.path().join("file"));
    let strace = Strace::new();
    let mut shell = strace.command(&recording("openat,write,exit_group", &log), Path::new("/bin/sh"));
    crate::run_ok(shell.arg("-c").arg("printf 'a\\001b' > \"$0\"").arg(&file));
    let trace = Trace::read(&log);
    let written = trace.calls.iter().find(|call| call.name == "write").expect("a write");
    assert_eq!((written.text(1), written.path_of(0)), (Some(b"a\x01b".to_vec()), Some(file)));
}
