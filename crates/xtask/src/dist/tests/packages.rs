//! What is packed, and that others can read it.

use super::{super::*, made_of, packed, release, stand_in};
use serde_json::Value;
use std::collections::BTreeSet;

#[test]
fn the_same_program_is_packed_to_the_same_bytes() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let written = folders.each_ref().map(|folder| release("twice").write(folder.path()).unwrap());
    assert_eq!(written[0].len(), 7, "{written:?}");
    for (one, other) in written[0].iter().zip(&written[1]) {
        assert_eq!(one.file_name(), other.file_name());
        assert!(fs::read(one).unwrap() == fs::read(other).unwrap(), "{one:?} and {other:?} differ");
    }
    // And what is told by the program is in there: bytes that never differ would hold that, too.
    let other = tempfile::tempdir().unwrap();
    release("another").write(other.path()).unwrap();
    let sums = |folder: &Path| fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    assert_ne!(sums(folders[0].path()), sums(other.path()));
}

#[test]
fn a_program_of_another_version_is_not_packed() {
    let folder = tempfile::tempdir().unwrap();
    let path = stand_in(folder.path(), "");
    let text = fs::read_to_string(&path).unwrap().replace(env!("CARGO_PKG_VERSION"), "9.9.9");
    testkit::write_program(&path, &text, 0o700);
    let root = super::repository();
    let error = Release::of(&root, Target::here(), 0, &path, Vec::new(), 1).unwrap_err();
    assert!(error.to_string().contains("says that it is \"rswarm 9.9.9,\""), "{error:#}");
}

#[test]
fn checksums_are_of_all_architectures_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("rswarm-0.0.1-riscv64.tar.zst"), "of yesterday").unwrap();
    fs::write(folder.path().join("notes.txt"), "no package").unwrap();
    release("now").write(folder.path()).unwrap();
    let sums = fs::read_to_string(folder.path().join("SHA256SUMS")).unwrap();
    let names: Vec<&str> = sums.lines().map(|line| line.split_once("  ").unwrap().1).collect();
    assert_eq!(names.len(), 7, "{sums}");
    assert!(names.contains(&"rswarm-0.0.1-riscv64.tar.zst") && names.contains(&"install.sh"), "{sums}");
    assert!(
        sums.contains(&format!("{}  rswarm-0.0.1-riscv64.tar.zst\n", pack::sha256(b"of yesterday"))),
        "{sums}"
    );
}

#[test]
fn the_notice_names_what_is_linked_in_and_brings_its_licence() {
    let text = supplied::notice(&release("")).unwrap();
    for words in
        ["\ntokio 1.", ": MIT", "\naws-lc-sys ", "Copyright (c) Meta Platforms", "the GNU C library: LGPL"]
    {
        assert!(text.contains(words), "{words:?} is not in the notice");
    }
    // For tests, for chores, at build time.
    for name in ["proptest", "ar", "cc", "serde_derive", "rswarm"] {
        assert!(!text.contains(&format!("\n{name} ")), "{name} is not linked in");
    }
    let without: Vec<_> = made_of()
        .into_iter()
        .filter(|one| one.checksum.is_some() && one.texts.is_empty())
        .map(|one| format!("{} {}: {}", one.name, one.version, one.licence))
        .collect();
    // Packages whose repository has the text and whose archive has not: their licence's name stands in the list.
    assert!(without.len() < 20, "{without:#?}");
}

#[test]
fn the_list_of_components_fits_together() {
    let release = release("");
    let text = sbom::text(&release).unwrap();
    assert_eq!(text, sbom::text(&release).unwrap());
    let list: Value = serde_json::from_str(&text).unwrap();
    let of = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let components = list["components"].as_array().unwrap();
    assert!(components.len() > 150, "only {}", components.len());
    let mut known: BTreeSet<String> = components.iter().map(|one| of(one, "bom-ref")).collect();
    assert_eq!(known.len(), components.len(), "two have the same reference");
    let whole = &list["metadata"]["component"];
    assert_eq!(of(whole, "name"), "rswarm");
    assert_eq!(of(&whole["hashes"][0], "content"), pack::sha256(&release.program));
    known.insert(of(whole, "bom-ref"));
    let mut reached = BTreeSet::from([of(whole, "bom-ref")]);
    let dependencies = list["dependencies"].as_array().unwrap();
    assert_eq!(dependencies.len(), known.len());
    // From the program one comes to all of them.
    loop {
        let next = dependencies.iter().filter(|one| reached.contains(&of(one, "ref")));
        let next = next.flat_map(|one| one["dependsOn"].as_array().unwrap());
        let next: BTreeSet<String> = next.map(|to| to.as_str().unwrap().to_owned()).collect();
        if next.is_subset(&reached) {
            break;
        }
        reached.extend(next);
    }
    assert_eq!(reached, known);
    let outside = components.iter().find(|one| of(one, "name") == "tokio").unwrap();
    assert_eq!(of(&outside["hashes"][0], "content").len(), 64);
    assert_eq!(list["metadata"]["timestamp"], "2023-11-14T22:13:20Z");
}

/// Returns what a program says; fails when it fails.
fn said(program: &str, words: &[&str]) -> String {
    let said = Command::new(program).args(words).output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{program} {words:?}: {text}");
    text
}

/// Returns the file of this architecture whose name ends so.
fn file(folder: &Path, end: &str) -> String {
    let mut names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path().display().to_string());
    names.find(|name| name.ends_with(end)).unwrap_or_else(|| panic!("no file ends with {end}"))
}

/// What dpkg and rpm read in our packages.
#[test]
#[ignore = "oracle: dpkg-deb, rpm, tar"]
fn package_managers_read_the_packages() {
    let packed = packed();
    let deb = file(&packed.folder, &format!("_{}.deb", Target::here().debian()));
    let fields = said("dpkg-deb", &["--info", &deb]);
    for words in [" Package: rswarm\n", " Architecture: ", "conffiles", "postinst", "prerm", "postrm"] {
        assert!(fields.contains(words), "{words:?}: {fields}");
    }
    let files = said("dpkg-deb", &["--contents", &deb]);
    let rpm = file(&packed.folder, &format!(".{}.rpm", Target::here().machine()));
    let in_rpm = said("rpm", &["-qp", "--qf", "[%{FILEMODES:perms} %{FILEUSERNAME} %{FILENAMES}\n]", &rpm]);
    for (mode, path) in [
        ("-rwxr-xr-x", "usr/bin/rswarm"),
        ("-rw-r--r--", "usr/lib/systemd/system/rswarm.service"),
        ("-rw-r--r--", "usr/lib/systemd/system/rswarm-host.service"),
        ("-rw-r--r--", "etc/rswarm/daemon.toml"),
        ("-rw-r--r--", "usr/share/man/man1/rswarm.1.gz"),
    ] {
        let of_deb = files.lines().find(|line| line.ends_with(&format!(" ./{path}"))).unwrap_or_default();
        assert!(of_deb.starts_with(mode) && of_deb.contains("root/root"), "{path}: {files}");
        let line = format!("{mode} root /{path}");
        assert!(in_rpm.lines().any(|one| one == line), "{line}: {in_rpm}");
    }
    let settings = said("rpm", &["-qp", "--configfiles", &rpm]);
    assert!(settings.contains("/etc/rswarm/daemon.toml"), "{settings}");
    let checked = said("rpm", &["-K", "--nosignature", &rpm]);
    assert!(checked.contains("digests OK"), "{checked}");
    let scripts = said("rpm", &["-qp", "--scripts", &rpm]);
    for words in
        ["preinstall scriptlet", "postinstall scriptlet", "preuninstall scriptlet", "postuninstall scriptlet"]
    {
        assert!(scripts.contains(words), "{words}: {scripts}");
    }
    for end in ["tar.zst", "tar.gz"] {
        let archive = file(&packed.folder, &format!("-{}.{end}", Target::here().machine()));
        let list = said("tar", &["-tvf", &archive]);
        let top = format!("rswarm-{}-{}/", env!("CARGO_PKG_VERSION"), Target::here().machine());
        assert!(list.lines().all(|line| line.contains(&top) && line.contains("root/root")), "{list}");
        assert!(list.contains(&format!("{top}rswarm\n")), "{list}");
    }
}

/// By the library of those who made the format.
#[test]
#[ignore = "oracle: cyclonedx-python-lib"]
fn the_list_of_components_is_as_its_schema_asks() {
    let python = super::repository().join("target/oracle-venv/bin/python");
    // A line of each text: nothing, or what is wrong with it.
    let script = "import sys\n\
                  from cyclonedx.schema import SchemaVersion\n\
                  from cyclonedx.validation.json import JsonStrictValidator\n\
                  judge = JsonStrictValidator(SchemaVersion.V1_6)\n\
                  for path in sys.argv[1:]:\n\
                  \x20   print(repr(judge.validate_str(open(path).read()) or ''))\n";
    let folder = tempfile::tempdir().unwrap();
    let text = sbom::text(&release("")).unwrap();
    let faults = [("\"library\"", "\"book\""), ("urn:uuid:", "urn:uid:"), ("\"SHA-256\"", "\"SHA-255\"")];
    let mut texts = vec![text.clone()];
    for (ours, wrong) in faults {
        assert!(text.contains(ours));
        texts.push(text.replacen(ours, wrong, 1));
    }
    let mut judge = Command::new(&python);
    judge.args(["-c", script]);
    for (n, text) in texts.iter().enumerate() {
        let path = folder.path().join(format!("{n}.json"));
        fs::write(&path, text).unwrap();
        judge.arg(path);
    }
    let said = output(&mut judge).unwrap();
    let said = String::from_utf8(said).unwrap();
    let right: Vec<bool> = said.lines().map(|line| line == "''").collect();
    assert_eq!(right, [true, false, false, false], "{said}");
}
