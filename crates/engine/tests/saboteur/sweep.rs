//! One work again and again: each time the next call of it fails, until it passes without that.

use crate::scene::{Original, Scene};
use pg_ark_contract::Result;
use pg_ark_testkit::saboteur::{EIO, ENOSPC, Fault};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A store that writes meets every fault.
pub const WRITING: [Fault; 5] =
    [Fault::Fail(EIO), Fault::Fail(ENOSPC), Fault::Tear, Fault::Deny, Fault::Gone(EIO)];
/// To one that only reads most are the same.
pub const READING: [Fault; 3] = [Fault::Fail(EIO), Fault::Tear, Fault::Gone(EIO)];

/// More calls than any of the works makes.
const MANY: u64 = 2000;
/// Works wait for the next second, and for disks.
const THREADS: usize = 12;
/// Up to here every call is struck with every fault; after it with the first, and with one in three of the others.
const EACH: u64 = 12;

/// Sweeps `work` with each fault. `judge` sees what came of it and which call was struck; the saboteur rests by then.
pub fn sweep<T: Send>(
    original: &Original,
    faults: &[Fault],
    prepare: &(dyn Fn(&Scene) + Sync),
    work: &(dyn Fn(&Scene) -> Result<T> + Sync),
    judge: &(dyn Fn(&Scene, Result<T>, &str) + Sync),
) {
    for (kind, &fault) in faults.iter().enumerate() {
        let is_tried = |number: u64| kind == 0 || number <= EACH || number % 3 == kind as u64 % 3;
        let (next, passed) = (AtomicU64::new(1), AtomicBool::new(false));
        let (struck, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    while !passed.load(Ordering::SeqCst) {
                        let number = next.fetch_add(1, Ordering::SeqCst);
                        assert!(number < MANY, "the work never ends");
                        if !is_tried(number) {
                            continue;
                        }
                        let scene = original.scene();
                        prepare(&scene);
                        scene.plan.strike_at(number, fault);
                        let result = work(&scene);
                        let Some(call) = scene.plan.rest() else {
                            passed.store(true, Ordering::SeqCst);
                            let result = result.unwrap_or_else(|e| panic!("it fails without a fault: {e:?}"));
                            judge(&scene, Ok(result), "nothing was struck");
                            return;
                        };
                        struck.fetch_add(1, Ordering::SeqCst);
                        failed.fetch_add(u64::from(result.is_err()), Ordering::SeqCst);
                        let said = result.as_ref().err().map_or("it passed".to_string(), ToString::to_string);
                        judge(&scene, result, &format!("call {number}, {call}, {fault:?}: {said}"));
                    }
                });
            }
        });
        let (struck, failed) = (struck.into_inner(), failed.into_inner());
        println!("{fault:?}: {struck} calls struck, {failed} of them told");
        assert!(struck > 2 && failed > 0, "{fault:?} was never met: {struck} struck, {failed} failed");
    }
}
