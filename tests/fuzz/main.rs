//! Everything that reads foreign bytes is thrown the seeds of the project and inputs made of them, the same ones each
//! time. What breaks a reader is made smaller and kept under `target/fuzz-findings`; as a seed
//! (`tests/fuzz/seeds/<target>`) it is thrown from then on. Other inputs are found by `cargo xtask fuzz`.

mod inputs;
#[expect(unreachable_pub, reason = "the same file is the library of libFuzzer's programs")]
mod targets;

use inputs::Inputs;
use std::{
    cell::Cell,
    collections::BTreeSet,
    fs,
    os::unix::fs::FileExt,
    panic,
    path::{Path, PathBuf},
    sync::{Once, mpsc},
    time::Duration,
};

type Target = fn(&[u8]);

/// Longest that one input may take, on a busy machine and without optimization.
const PATIENCE: Duration = Duration::from_secs(60);
/// Stack of a thread that serves requests, and of the main thread of a client. *Unit:* bytes.
const DAEMON: usize = 2 << 20;
const CLIENT: usize = 8 << 20;
/// Smaller inputs that are tried for a finding.
const SHRINKS: usize = 2000;

/// A test for each target, how many inputs are made for it (fewer where one takes long), and on which stack.
macro_rules! targets {
    ($($name:ident: $inputs:literal on $stack:ident),* $(,)?) => {
        const TARGETS: &[&str] = &[$(stringify!($name)),*];

        $(#[test]
        fn $name() {
            let kept = findings().join(stringify!($name));
            if let Err(finding) = throw(targets::$name, $stack, &seeds(stringify!($name)), $inputs, &kept) {
                panic!("fuzz target {}: {finding}; it is kept in {}", stringify!($name), kept.display());
            }
        })*
    };
}

targets! {
    api_json: 10_000 on DAEMON,
    dockerfiles: 10_000 on DAEMON,
    dockerignore: 1_500 on DAEMON,
    layers: 3_000 on DAEMON,
    logs: 10_000 on DAEMON,
    references: 10_000 on DAEMON,
    registry_answers: 10_000 on DAEMON,
    stack_files: 10_000 on CLIENT,
    templates: 10_000 on DAEMON,
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz")
}

fn findings() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("../../fuzz-findings")
}

fn names(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(here().join(folder)).expect("a folder of the project");
    let stem = |path: PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    entries.filter_map(|entry| stem(entry.expect("an entry").path())).collect()
}

/// Returns the seeds of a target in the order of their names.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = here().join("seeds").join(target);
    let names: BTreeSet<PathBuf> =
        fs::read_dir(folder).expect("seeds").map(|entry| entry.expect("a seed").path()).collect();
    names.iter().map(|path| fs::read(path).expect("a seed")).collect()
}

/// Throws what an earlier run kept, the seeds, and the inputs with numbers from 0 on. The input that is being read
/// is in the file `kept`, so that it is known even when it takes the whole process along (a stack that overflows).
///
/// # Errors
/// Which input broke the target, or took too long; the file then has it, as small as it could be made.
fn throw(
    target: Target,
    stack_bytes: usize,
    seeds: &[Vec<u8>],
    made: u64,
    kept: &Path,
) -> Result<(), String> {
    fs::create_dir_all(kept.parent().expect("a file in a folder")).expect("a folder for findings");
    let earlier = fs::read(kept).ok();
    let file = fs::File::options().create(true).truncate(false).write(true).open(kept).expect("a file");
    let (tell, told) = mpsc::sync_channel(1024);
    let seeds = seeds.to_vec();
    let run = move || {
        let keep = |input: &[u8]| {
            file.set_len(0).and_then(|()| file.write_all_at(input, 0)).expect("the file of the finding");
        };
        let breaks = |input: &[u8]| panic::catch_unwind(|| target(input)).is_err();
        let attempt = |name: String, input: Vec<u8>| {
            keep(&input);
            tell.send(None).expect("the test waits");
            if breaks(&input) {
                let small = quietly(|| shrink(input, breaks, || tell.send(None).expect("the test waits")));
                keep(&small);
                return Err(format!(
                    "{name} breaks it, also when it is only {:?}",
                    small.escape_ascii().to_string()
                ));
            }
            Ok(())
        };
        let inputs = Inputs::new(seeds.clone());
        let seeds = seeds.into_iter().enumerate().map(|(n, seed)| (format!("seed {n}"), seed));
        let earlier = earlier.into_iter().map(|input| ("what an earlier run kept".to_owned(), input));
        let made = (0..made).map(|number| (format!("input {number}"), inputs.make(number)));
        let ended = earlier.chain(seeds).chain(made).try_for_each(|(name, input)| attempt(name, input));
        tell.send(Some(ended)).expect("the test waits");
    };
    std::thread::Builder::new().stack_size(stack_bytes).spawn(run).expect("a thread");
    loop {
        match told.recv_timeout(PATIENCE) {
            Ok(None) => {}
            Ok(Some(Ok(()))) => return fs::remove_file(kept).map_err(|error| error.to_string()),
            Ok(Some(Err(finding))) => return Err(finding),
            Err(error) => return Err(format!("an input takes more than {PATIENCE:?} ({error})")),
        }
    }
}

/// Leaves out parts, large ones first, as long as what remains still breaks the target.
fn shrink(mut input: Vec<u8>, breaks: impl Fn(&[u8]) -> bool, alive: impl Fn()) -> Vec<u8> {
    let mut left = SHRINKS;
    let mut size = input.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < input.len() && left > 0 {
            left -= 1;
            alive();
            let rest = [&input[..at], &input[(at + size).min(input.len())..]].concat();
            if breaks(&rest) { input = rest } else { at += size }
        }
        size /= 2;
    }
    input
}

thread_local! { static QUIET: Cell<bool> = const { Cell::new(false) } }

/// Runs `work` without a word of its panics: the first has said why.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                loud(panic);
            }
        }));
    });
    QUIET.set(true);
    let result = work();
    QUIET.set(false);
    result
}

#[test]
fn every_target_has_a_test_seeds_and_a_program_for_libfuzzer() {
    let tested: BTreeSet<String> = TARGETS.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(names("fuzz_targets"), tested);
    assert_eq!(names("seeds"), tested);
    assert!(TARGETS.iter().all(|name| !seeds(name).is_empty()));
}

#[test]
fn same_number_makes_the_same_input() {
    let inputs = || Inputs::new(seeds("stack_files"));
    let made: BTreeSet<Vec<u8>> = (0..100).map(|number| inputs().make(number)).collect();
    assert_eq!(made, (0..100).map(|number| inputs().make(number)).collect());
    assert!(made.len() > 90, "only {} inputs differ", made.len());
}

#[test]
fn input_that_breaks_a_target_is_found_made_small_and_thrown_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let kept = folder.path().join("kept");
    // Not in the seed: it takes a change to get there.
    let target: Target = |input| assert!(!input.windows(2).any(|pair| pair == b"}}"), "two in a row");
    let seed = vec![br#"{"name": {"inner": 1}, "other": 2}"#.to_vec()];
    let finding =
        throw(target, DAEMON, &seed, 10_000, &kept).expect_err("some input has two braces in a row");
    assert!(finding.starts_with("input "), "{finding}");
    assert_eq!(fs::read(&kept).expect("a finding"), b"}}");
    let finding = throw(target, DAEMON, &seed, 0, &kept).expect_err("what was kept still breaks it");
    assert!(finding.starts_with("what an earlier run kept"), "{finding}");
    throw(|_| {}, DAEMON, &seed, 10, &kept).expect("nothing breaks this one");
    assert!(!kept.exists());
}
