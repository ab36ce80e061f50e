//! Power loss, by replaying what the engine asked of the system: after each sync, each name and each acknowledgement, the
//! worst that a power failure may legally leave is built and looked at.
//!
//! What holds at each moment: earlier backups are there, byte by byte; a record that says `complete` has everything
//! that it needs; what a server or a user was told is durable is there; a restored data directory that a server would
//! start from is whole. Copies of the worst are judged by pgark itself and written to by the next run.

use crate::archiving::{archiving, object, switch_wal, wal_folder};
use crate::support::{Ready, names_below, pgark, pgark_of, ready};
use pg_ark_testkit::process::descendants;
use pg_ark_testkit::replay::{CALLS, Disk, Image, Loss, Moment};
use pg_ark_testkit::strace::{Strace, Trace, recording};
use pg_ark_testkit::{
    Chance, Cluster, LONG, Repo, SHORT, Scratch, StopMode, chown_to_server, file_url, is_thorough, run,
    wait_until,
};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Images that pgark judges in each test, of all that differ, where nobody asks for more.
const JUDGED: usize = 6;

/// Has a server start its engine under strace; each engine leaves a trace in the folder.
struct Recorder<'a> {
    server: &'a Cluster,
    folder: Scratch,
    _strace: Strace,
}

impl<'a> Recorder<'a> {
    #[track_caller]
    fn start(server: &'a Cluster) -> Self {
        let folder = Scratch::new("traces");
        let script = folder.path().join("engine.sh");
        let options = recording(CALLS, &folder.path().join("trace-{}"));
        let strace = Strace::new();
        fs::write(&script, strace.wrapper(&options, &pgark_of(server.pg()))).expect("a script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("its mode");
        use_engine(server, &script.display().to_string());
        Recorder { server, folder, _strace: strace }
    }

    /// Traces of engines that said this, each when its engine has ended; the server uses its own engine again.
    #[track_caller]
    fn finish(self, said: &str) -> Vec<Trace> {
        use_engine(self.server, "");
        let postmaster = self.server.pid().expect("a server");
        let recorded =
            || descendants(postmaster).iter().any(|process| process.title.contains("pgark engine"));
        wait_until("the end of the recorded engines", SHORT, || !recorded());
        self.traces(said)
    }

    fn traces(&self, said: &str) -> Vec<Trace> {
        let names = names_below(self.folder.path()).into_iter().filter(|name| name.starts_with("trace-"));
        let traces = names.map(|name| Trace::read(&self.folder.path().join(name)));
        let says = |trace: &Trace| {
            let mut lines =
                trace.calls.iter().filter(|call| call.name == "write" && call.number(0) == Some(1));
            lines.any(|call| String::from_utf8_lossy(&call.text(1).unwrap_or_default()).contains(said))
        };
        traces.filter(says).collect()
    }
}

/// Sets the program that the server starts; the setting is there when this returns.
#[track_caller]
fn use_engine(server: &Cluster, path: &str) {
    server.configure(&[&format!("pg_ark.engine_path = '{path}'")]);
    server.reload();
    wait_until("the new engine_path", SHORT, || server.psql("SHOW pg_ark.engine_path") == path);
}

/// Images that differ, the likeliest to be wrong first, and how many there were.
#[derive(Default)]
struct Worst {
    seen: BTreeSet<u64>,
    told: Vec<(String, Image)>,
    other: Vec<(String, Image)>,
    moments: usize,
}

impl Worst {
    /// Remembers an image unless there was one like it.
    fn add(&mut self, label: String, image: Image, is_told: bool) -> bool {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hash = DefaultHasher::new();
        for (path, content) in &image.0 {
            // Equal content that was written twice counts twice, which costs time and nothing else.
            (path, content.as_ref().map(|content| (content.len(), crc(content)))).hash(&mut hash);
        }
        if !self.seen.insert(hash.finish()) {
            return false;
        }
        if is_told {
            self.told.push((label, image))
        } else {
            self.other.push((label, image))
        }
        true
    }

    /// Some of them, by chance: those right after an acknowledgement first.
    fn sample(mut self, chance: &mut Chance) -> Vec<(String, Image)> {
        let most = if is_thorough() { 60 } else { JUDGED };
        let mut sample = Vec::new();
        for mut of in [std::mem::take(&mut self.told), std::mem::take(&mut self.other)] {
            while !of.is_empty() && sample.len() < most {
                sample.push(of.swap_remove(chance.below(of.len() as u64) as usize));
            }
        }
        sample
    }
}

/// A sum of some of the content: enough to tell images apart.
fn crc(content: &[u8]) -> u64 {
    let step = (content.len() / 512).max(1);
    content.iter().step_by(step).fold(content.len() as u64, |sum, byte| {
        sum.wrapping_mul(0x100_0000_01b3).wrapping_add(u64::from(*byte))
    })
}

/// Builds every loss at every moment and hands it to `look`, with what was said so far. Of new and removed files, of which
/// a restore has thousands, one in so many.
fn each_loss(
    disk: &mut Disk,
    (traces, one_in): (&[Trace], usize),
    chance: &mut Chance,
    look: &mut dyn FnMut(&str, &Image, &str, bool) -> bool,
) -> Worst {
    let mut worst = Worst::default();
    let mut said = String::new();
    for trace in traces {
        disk.replay(trace, &mut |disk, moment| {
            let (label, told) = match &moment {
                Moment::Call(call) => (format!("{} {:?}", call.name, call.paths()), false),
                Moment::Says(text) => {
                    let text = String::from_utf8_lossy(text).into_owned();
                    said.push_str(&text);
                    (format!("it says {text}"), true)
                }
                Moment::Ends(code) => {
                    said.push_str(&format!("exit {code}\n"));
                    (format!("exit {code}"), true)
                }
            };
            worst.moments += 1;
            let is_new = matches!(&moment, Moment::Call(call) if ["open", "mkdir", "unlink", "rmdir"].iter().any(|n| call.name.starts_with(n)));
            if is_new && worst.moments % one_in != 0 {
                return;
            }
            for loss in Loss::ALL {
                let image = disk.after(loss, chance);
                let label = format!("{loss:?} lost after: {label}");
                let keep = look(&label, &image, &said, told);
                if keep {
                    worst.add(label, image, told);
                }
            }
        });
    }
    worst
}

/// Names of the backups in an image whose record says `complete`, and the folder of each.
fn complete(image: &Image) -> Vec<(String, PathBuf)> {
    let records = image.0.keys().filter(|path| path.ends_with("backup.json"));
    let says = |path: &PathBuf| image.file(path).is_some_and(|text| contains(text, "\"complete\""));
    let folder = |path: &PathBuf| path.parent().expect("a folder").to_path_buf();
    let name = |folder: &Path| folder.file_name().expect("a name").to_string_lossy().into_owned();
    records.filter(|path| says(path)).map(|path| (name(&folder(path)), folder(path))).collect()
}

fn contains(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

/// Fails unless a backup's folder in an image is what it became in the end. Nothing that it lacks is needed: the rest of
/// the folder are files that were being written.
#[track_caller]
fn assert_whole(label: &str, image: &Image, folder: &Path, end: &Image) {
    let (found, wanted) = (image.below(folder), end.below(folder));
    for (path, content) in &wanted.0 {
        assert!(
            found.0.get(path) == Some(content),
            "{label}: {} of a complete backup is lost",
            path.display()
        );
    }
}

/// Lets pgark judge an image of a repository: what is complete restores, and the next backup works.
#[track_caller]
fn judge(ready: &Ready, label: &str, image: &Image, with_backup: bool) {
    let scratch = Scratch::new("image");
    let place = scratch.path().join("repository");
    image.write(&place);
    let (server, url) = (&ready.server, file_url(&place));
    let program = || {
        let mut pgark = pg_ark_testkit::command(pgark_of(server.pg()));
        pgark.args(["--repo", &url]);
        pgark
    };
    for (backup, _) in complete(image) {
        let verified = run(program().args(["verify", &backup]));
        assert!(verified.success(), "{label}: {verified}");
        let copy = Scratch::new("restored");
        let data = copy.path().join("data");
        let restored = run(program().args(["restore", &backup, "--pgdata"]).arg(&data));
        assert!(restored.success(), "{label}: {restored}");
        run(server.pg().tool("pg_verifybackup").args(["-n", "-i", "postgresql.conf"]).arg(&data)).ok();
    }
    if with_backup {
        server.psql(&format!("SELECT * FROM ark.enable('{url}')"));
        let taken = server.try_psql("SELECT ark.backup_start(wait => true)");
        assert!(taken.is_ok(), "{label}: the next backup: {taken:?}");
        let verified = run(program().arg("verify").args(["--level", "data"]).arg("latest"));
        assert!(verified.success(), "{label}: {verified}");
    }
}

#[test]
fn power_loss_during_a_backup_costs_that_backup_and_nothing_that_was_complete() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    let first = ready.take_backup();
    let mut disk = Disk::load(ready.repo.path());
    let recorder = Recorder::start(server);
    let second = ready.take_backup();
    let traces = recorder.finish("\"started\"");
    assert_eq!(traces.len(), 1, "one engine took the backup");
    let end = Disk::load(ready.repo.path()).now();
    let mut chance = Chance::new();
    let mut acknowledged = false;
    let worst = each_loss(&mut disk, (&traces, 1), &mut chance, &mut |label, image, said, _| {
        let complete = complete(image);
        complete.iter().for_each(|(_, folder)| assert_whole(label, image, folder, &end));
        let has = |backup: &str| complete.iter().any(|(name, _)| name == backup);
        assert!(has(&first), "{label}: the earlier backup is lost");
        let done = said.contains("\"done\"");
        acknowledged |= done;
        assert!(!done || has(&second), "{label}: the server was told that the backup is complete");
        true
    });
    assert!(acknowledged, "the acknowledgement was not recognised");
    assert_eq!(disk.now(), end, "the model ends where the engine did");
    let (moments, images) = (worst.moments, worst.seen.len());
    for (number, (label, image)) in worst.sample(&mut chance).iter().enumerate() {
        judge(&ready, label, image, number % 3 == 0);
    }
    println!("power loss during a backup: {moments} moments, {images} images");
}

#[test]
fn power_loss_takes_no_repository_that_was_told_to_exist() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    let scratch = Scratch::new("new");
    let root = scratch.folder("root");
    let place = root.join("a new/repository");
    let mut disk = Disk::load(&root);
    let recorder = Recorder::start(server);
    server.psql(&format!("SELECT * FROM ark.enable('{}')", file_url(&place)));
    let mut traces = recorder.traces("\"opened\"");
    server.psql("SELECT ark.backup_start(wait => true)");
    traces.extend(recorder.finish("\"started\""));
    assert_eq!(traces.len(), 2, "one engine made the repository, one took the backup");
    let end = Disk::load(&root).now();
    let mut chance = Chance::new();
    let worst = each_loss(&mut disk, (&traces, 1), &mut chance, &mut |label, image, said, _| {
        if said.contains("\"opened\"") {
            let record = Path::new("a new/repository/pgark.json");
            assert!(image.file(record) == end.file(record), "{label}: the repository is lost");
        }
        complete(image).iter().for_each(|(_, folder)| assert_whole(label, image, folder, &end));
        let done = said.matches("\"done\"").count();
        assert!(done < 2 || !complete(image).is_empty(), "{label}: the backup is lost");
        true
    });
    println!("power loss of a new repository: {} moments, {} images", worst.moments, worst.seen.len());
}

/// What a stored segment holds.
#[track_caller]
fn decoded(content: &[u8]) -> Vec<u8> {
    let scratch = Scratch::new("object");
    let path = scratch.path().join("object");
    fs::write(&path, content).expect("a file");
    chown_to_server(&path);
    let output = pg_ark_testkit::command("zstd").args(["-d", "-c", "-q"]).arg(&path).output().expect("zstd");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Segments that a server was told are stored, in the events of its engine.
fn archived(said: &str) -> Vec<String> {
    let told = said.lines().filter(|line| line.contains("\"archived\""));
    let name = |line: &str| Some(line.split("\"file\":\"").nth(1)?.split('"').next()?.to_string());
    told.filter_map(name).collect()
}

/// Fails unless every file that was told is in the image, as it is in the archive.
#[track_caller]
fn assert_told_is_there(label: &str, image: &Image, told: &[String], ready: &Ready) {
    for file in told {
        let stored = object(ready, file).unwrap_or_else(|| panic!("{file} was told and is not stored"));
        let path = stored.strip_prefix(ready.repo.path()).expect("in the repository");
        let content = fs::read(&stored).expect("the object");
        assert!(image.file(path) == Some(&content), "{label}: {file} was told to be stored and is lost");
    }
}

/// Writes some segments; returns their names.
fn segments(server: &Cluster, count: usize) -> Vec<String> {
    let fill = "SELECT pg_logical_emit_message(false, 'fill', repeat(md5(random()::text), 20000))";
    let segment = |_| {
        server.psql(fill);
        switch_wal(server)
    };
    (0..count).map(segment).collect()
}

fn small() -> pg_ark_testkit::Builder {
    Cluster::builder().wal_segment_mb(1).conf("wal_keep_size = '1GB'")
}

#[test]
fn power_loss_takes_no_segment_that_the_server_was_told_is_stored() {
    let ready = archiving(small().conf("archive_command = ''"));
    let server = &ready.server;
    // Before anything is stored: the first segment makes every folder.
    let mut disk = Disk::load(ready.repo.path());
    let recorder = Recorder::start(server);
    server.restart();
    let all = segments(server, 6);
    let last = all.last().expect("six");
    let done = server.data().join(format!("pg_wal/archive_status/{last}.done"));
    wait_until("the last segment in the archive", LONG, || done.is_file());
    server.stop(StopMode::Fast);
    server.start();
    let traces = recorder.finish("\"archived\"");
    let mut chance = Chance::new();
    let mut most = 0;
    let known: BTreeSet<String> = names_below(&wal_folder(&ready).expect("an archive")).into_iter().collect();
    let worst = each_loss(&mut disk, (&traces, 1), &mut chance, &mut |label, image, said, told| {
        let files = archived(said);
        most = most.max(files.len());
        assert_told_is_there(label, image, &files, &ready);
        told
    });
    assert!(most >= 6 && known.len() >= 6, "{most} segments were told");
    for segment in &all {
        let stored = fs::read(object(&ready, segment).expect("stored")).expect("the object");
        let original = fs::read(server.data().join("pg_wal").join(segment)).expect("a kept segment");
        assert!(decoded(&stored) == original, "{segment} is stored differently");
    }
    println!("power loss while archiving: {} moments, {} images", worst.moments, worst.seen.len());
}

#[test]
fn power_loss_takes_no_segment_that_wal_push_was_done_with() {
    let ready = ready(small().conf("archive_mode = on").conf("archive_command = '/bin/false'"));
    let mut disk = Disk::load(ready.repo.path());
    let all = segments(&ready.server, 4);
    let (traces, strace) = (Scratch::new("traces"), Strace::new());
    let mut chance = Chance::new();
    let mut moments = 0;
    for (number, segment) in all.iter().enumerate() {
        let log = traces.path().join(format!("trace-{number}"));
        let mut push = strace.command(&recording(CALLS, &log), &pgark_of(ready.server.pg()));
        push.args(["--repo", &ready.repo.url(), "--cluster", "main", "wal-push"]);
        run(push.arg(ready.server.data().join("pg_wal").join(segment))).ok();
        let trace = [Trace::read(&log)];
        let worst = each_loss(&mut disk, (&trace, 1), &mut chance, &mut |label, image, said, told| {
            let count = if said.contains("exit 0") { number + 1 } else { number };
            assert_told_is_there(label, image, &all[..count], &ready);
            told
        });
        assert!(moments > 0 || worst.moments > 0);
        moments += worst.moments;
    }
    assert_eq!(disk.now(), Disk::load(ready.repo.path()).now(), "the model ends where wal-push did");
    println!("power loss during wal-push: {moments} moments");
}

/// Fails when a server would start from a data directory that is neither what is restored nor what was there before.
#[track_caller]
fn assert_whole_or_unstartable(label: &str, image: &Image, before: &Image, end: &Image) {
    let data = Path::new("data");
    if image.file(data.join("global/pg_control")).is_none() {
        return;
    }
    let found = image.below(data);
    let first_lost = |wanted: &Image| {
        let mut wanted = wanted.0.iter().filter(|(path, _)| !path.ends_with("pg_ark_restore.unfinished"));
        wanted.find(|(path, content)| found.0.get(*path) != Some(*content)).map(|(path, _)| path.clone())
    };
    let (new, old) = (first_lost(&end.below(data)), first_lost(&before.below(data)));
    let is_old = old.is_none() && before.file(data.join("global/pg_control")).is_some();
    assert!(new.is_none() || is_old, "{label}: {new:?} is lost and the server would start (old: {old:?})");
}

/// Restores under strace to `data` in the root; checks each loss; returns samples of what was left.
#[track_caller]
fn recorded_restore(
    ready: &Ready,
    root: &Path,
    options: &[&str],
    chance: &mut Chance,
) -> Vec<(String, Image)> {
    let traces = Scratch::new("traces");
    let log = traces.path().join("trace");
    let mut disk = Disk::load(root);
    let strace = Strace::new();
    let mut restore = strace.command(&recording(CALLS, &log), &pgark_of(ready.server.pg()));
    restore.args(["--repo", &ready.repo.url(), "restore", "latest", "--pgdata"]).arg(root.join("data"));
    run(restore.args(options)).ok();
    let end = Disk::load(root).now();
    let before = disk.now();
    let mut ended = false;
    let one_in = if is_thorough() { 10 } else { 150 };
    let worst = each_loss(&mut disk, (&[Trace::read(&log)], one_in), chance, &mut |label, image, said, _| {
        assert_whole_or_unstartable(label, image, &before, &end);
        if said.contains("exit 0") {
            ended = true;
            assert!(
                image.below(Path::new("data")) == end.below(Path::new("data")),
                "{label}: restored and lost"
            );
        }
        true
    });
    assert!(ended, "the end of the restore was not recognised");
    assert_eq!(disk.now(), end, "the model ends where the restore did");
    println!("power loss during a restore {options:?}: {} moments", worst.moments);
    worst.sample(chance)
}

#[test]
fn power_loss_during_a_restore_leaves_all_or_nothing_that_starts() {
    let ready = ready(Cluster::builder());
    ready.take_backup();
    let scratch = Scratch::new("target");
    let root = scratch.folder("root");
    let mut chance = Chance::new();
    let images = recorded_restore(&ready, &root, &[], &mut chance);
    let over = recorded_restore(&ready, &root, &["--replace"], &mut chance);
    for (label, image) in images.iter().chain(&over).step_by(2) {
        // Whatever the power failure left, the restore is repeated.
        let place = Scratch::new("image");
        let root = place.path().join("root");
        image.write(&root);
        let mut again = pgark(ready.server.pg(), &ready.repo);
        again.args(["restore", "latest", "--replace", "--pgdata"]).arg(root.join("data"));
        let restored = run(&mut again);
        assert!(restored.success(), "{label}: {restored}");
        run(ready
            .server
            .pg()
            .tool("pg_verifybackup")
            .args(["-n", "-i", "postgresql.conf"])
            .arg(root.join("data")))
        .ok();
    }
}

#[test]
fn a_repository_with_a_name_alone_is_no_repository() {
    // What the losses above can find must be findable: a record that was never synced is seen as lost.
    let repo = Repo::new();
    let mut disk = Disk::load(repo.path());
    let traces = Scratch::new("traces");
    let log = traces.path().join("trace");
    let strace = Strace::new();
    let mut shell = strace.command(&recording(CALLS, &log), Path::new("/bin/sh"));
    run(shell.args(["-c", "echo '\"complete\"' > \"$0/backup.json\""]).arg(repo.path())).ok();
    let mut found = BTreeSet::new();
    each_loss(
        &mut disk,
        (&[Trace::read(&log)], 1),
        &mut Chance::from_seed(1),
        &mut |label, image, said, _| {
            if said.contains("exit 0") && complete(image).is_empty() {
                found.insert(label.split(' ').next().unwrap_or_default().to_string());
            }
            false
        },
    );
    assert!(
        found.is_superset(&["Everything", "Content", "ContentToZeros"].map(String::from).into()),
        "{found:?}"
    );
}
