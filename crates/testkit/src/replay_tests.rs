use super::*;
use crate::strace::{Strace, recording};
use crate::{Scratch, run_ok};

/// Runs a program in a new folder; returns the disk as it was before, and what the program did.
fn recorded(script: &str) -> (Scratch, Disk, Trace) {
    let scratch = Scratch::new("replay");
    let (root, log) = (scratch.folder("root"), scratch.path().join("log"));
    fs::write(root.join("old"), "old").expect("a file");
    crate::chown_to_server(&root.join("old"));
    let disk = Disk::load(&root);
    let strace = Strace::new();
    let mut perl = strace.command(&recording(CALLS, &log), Path::new("/usr/bin/perl"));
    run_ok(perl.args(["-e", script]).arg(&root));
    (scratch, disk, Trace::read(&log))
}

/// What each loss leaves at the end of a program, as `path=content`.
fn left(script: &str, loss: Loss) -> Vec<String> {
    let (_scratch, mut disk, trace) = recorded(script);
    disk.replay(&trace, &mut |_, _| {});
    let image = disk.after(loss, &mut Chance::from_seed(1));
    let text = |content: &Content| String::from_utf8_lossy(content).replace('\0', "0");
    let file = |(path, content): (&PathBuf, &Option<Content>)| {
        content.as_ref().map(|content| format!("{}={}", path.display(), text(content)))
    };
    image.0.iter().filter_map(file).collect()
}

const BEGIN: &str =
    "use IO::Handle; my $p = $ARGV[0]; open(my $f, '>', \"$p/new\") or die; syswrite $f, 'abc';";

#[test]
fn what_was_not_synced_is_lost() {
    assert_eq!(left(BEGIN, Loss::Everything), ["old=old"]);
    assert_eq!(left(BEGIN, Loss::Content), ["new=", "old=old"]);
    assert_eq!(left(BEGIN, Loss::ContentToZeros), ["new=000", "old=old"]);
    assert_eq!(left(BEGIN, Loss::Names), ["old=old"]);
}

#[test]
fn a_synced_file_needs_its_folder_synced() {
    let script = format!("{BEGIN} $f->sync or die; rename \"$p/new\", \"$p/old\";");
    assert_eq!(left(&script, Loss::Everything), ["old=old"]);
    assert_eq!(left(&script, Loss::Content), ["old=abc"]);
    let later = format!("{script} syswrite $f, 'def';");
    assert_eq!(left(&later, Loss::Content), ["old=abc"]);
    assert_eq!(left(&later, Loss::ContentToZeros), ["old=000000"]);
    let synced = format!("{script} open(my $d, '<', $p); $d->sync or die;");
    assert_eq!(left(&synced, Loss::Everything), ["old=abc"]);
}

#[test]
fn the_model_ends_where_the_program_did() {
    let script = format!(
        "{BEGIN} mkdir \"$p/in\"; rename \"$p/new\", \"$p/in/a\"; link \"$p/old\", \"$p/in/b\"; unlink \"$p/old\"; \
         sysseek $f, 1, 0; syswrite $f, 'xyz'; truncate $f, 3;"
    );
    let (scratch, mut disk, trace) = recorded(&script);
    let mut moments = 0;
    disk.replay(&trace, &mut |_, _| moments += 1);
    assert_eq!(disk.now(), Disk::load(&scratch.path().join("root")).now());
    assert_eq!(disk.now().file("in/a"), Some(&b"axy"[..]));
    assert_eq!(disk.after(Loss::Everything, &mut Chance::from_seed(1)).file("old"), Some(&b"old"[..]));
    assert!(moments >= 5, "{moments}");
}
