//! `rswarm compose --dry-run`: every command goes to its end, and nothing happens.

use crate::{
    compose::{compose, project},
    lab, load_hello,
};
use std::{fs, path::Path};
use testkit::Lab;

/// Everything that an engine has and says of it, and nothing that changes with time.
fn engine_state(lab: &Lab) -> String {
    let mut all = String::new();
    for id in lab.rswarm(1, &["ps", "-aq"]).ok().split_whitespace() {
        let container = lab.api(1, &format!("/containers/{id}/json")).expect("a container");
        all.push_str(&container);
    }
    for path in ["/networks", "/volumes", "/images/json"] {
        all.push_str(&lab.api(1, path).expect("a list"));
        all.push('\n');
    }
    all
}

#[test]
fn a_dry_run_goes_through_every_command_and_changes_nothing() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let text = |subnet: &str| {
        format!(
            "
services:
  web:
    image: rswarm/hello
    command: [web]
    depends_on: {{db: {{condition: service_healthy}}, once: {{condition: service_completed_successfully}}}}
    networks: [own]
    volumes: ['data:/data']
    post_start: [{{command: [/hello, check, 'db:80']}}]
  db:
    image: rswarm/hello
    command: [web]
    networks: [own]
    # Once it is healthy, nothing happens by itself.
    healthcheck:
      test: [CMD, /hello, check, '127.0.0.1:80']
      interval: 1h
      start_interval: 200ms
      start_period: 1m
  once:
    image: rswarm/hello
    command: [check, 'db:80']
    networks: [own]
    depends_on: {{db: {{condition: service_healthy}}}}
  made: {{build: ., image: 'made:1', profiles: [made]}}
  absent: {{image: 'localhost:1/absent:1', profiles: [absent]}}
volumes: {{data: }}
networks: {{own: {{ipam: {{config: [{{subnet: {subnet}}}]}}}}}}
"
        )
    };
    let folder = project(&lab, "dry", &text("10.124.1.0/24"));
    fs::write(folder.join("Dockerfile"), "FROM rswarm/hello\nCMD [\"web\"]\n").expect("a file");
    fs::write(folder.join("note"), "hi").expect("a file");
    let in_folder = |name: &str| folder.join(name).display().to_string();

    // Of nothing: all is told as it would be made, and nothing is.
    let empty = engine_state(&lab);
    let told = compose(&lab, &folder, &["--dry-run", "up"]);
    assert_eq!(told.code, 0, "{told:?}");
    for line in [
        " DRY-RUN MODE -  Network dry_own  Created",
        " DRY-RUN MODE -  Volume dry_data  Created",
        " DRY-RUN MODE -  Container dry-db-1  Started",
        " DRY-RUN MODE -  Container dry-web-1  Started",
    ] {
        assert!(told.stderr.contains(line), "{line}: {told:?}");
    }
    assert!(told.stdout.contains("end of 'compose up' output"), "{told:?}");
    let absent = compose(&lab, &folder, &["up", "-d", "--dry-run", "absent"]);
    assert_ne!(absent.code, 0, "a pull that would fail fails: {absent:?}");
    assert_eq!(engine_state(&lab), empty);

    compose(&lab, &folder, &["up", "-d"]).ok();
    let (note, out, exported) = (in_folder("note"), in_folder("out"), in_folder("web.tar"));
    let words: &[(&str, &[&str], i32)] = &[
        ("up", &["-d", "--force-recreate", "-V", "--yes"], 0),
        ("create", &["--scale", "db=2"], 0),
        ("down", &["-v", "--rmi", "all"], 0),
        ("exec", &["-d", "web", "/hello", "check", "web:80"], 0),
        ("exec", &["web", "/hello", "check", "web:80"], 1),
        ("run", &["-d", "db"], 0),
        ("run", &["--rm", "db"], 1),
        ("build", &["made"], 0),
        ("pull", &["db"], 0),
        ("push", &["made"], 1),
        ("restart", &[], 0),
        ("stop", &[], 0),
        ("start", &[], 0),
        ("kill", &["db"], 0),
        ("rm", &["-f", "-s", "-v"], 0),
        ("pause", &[], 0),
        ("unpause", &[], 0),
        ("cp", &[&note, "web:/data/note"], 0),
        ("cp", &["web:/hello", &out], 0),
        ("attach", &["web"], 1),
        ("commit", &["web", "kept:1"], 0),
        ("export", &["-o", &exported, "web"], 0),
        ("publish", &["-y", "localhost:1/shop:1"], 0),
        ("scale", &["db=3"], 0),
        ("wait", &["--down-project", "once"], 0),
        ("config", &["-o", &out], 0),
    ];
    // These show something, or follow what others do; `watch` only goes on, through the same requests.
    let looks = [
        "ps", "logs", "top", "port", "images", "events", "stats", "volumes", "version", "ls", "watch", "help",
    ];
    let help = lab.rswarm(1, &["compose", "--help"]).ok();
    let listed = help.lines().take_while(|line| !line.contains("ptions:"));
    let listed: Vec<_> = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   ")).collect();
    assert!(listed.len() >= words.len(), "{help}");
    for line in listed {
        let word = line.split_whitespace().next().expect("a word");
        let is_known = looks.contains(&word) || words.iter().any(|(known, ..)| *known == word);
        assert!(is_known, "{word}: does it change something? Then it is tried in a dry run");
    }
    let before = engine_state(&lab);
    let since = lab.rswarm(1, &["events", "--since", "1h", "--until", "0s"]).ok();
    for (word, args, code) in words {
        let told = compose(&lab, &folder, &[&["--dry-run", word], *args].concat());
        assert_eq!(told.code, *code, "{word} {args:?}: {told:?}");
        assert_eq!(engine_state(&lab), before, "{word} {args:?} changed something: {told:?}");
    }
    // Nor where a network would be made anew, and its containers would move.
    project(&lab, "dry", &text("10.124.2.0/24"));
    let told = compose(&lab, &folder, &["--dry-run", "up", "-d"]);
    assert!(told.stderr.contains("Network dry_own  Removed"), "{told:?}");
    assert_eq!(engine_state(&lab), before);
    // Not even for a moment. Who looks at an image or a container makes no event.
    let happened = lab.rswarm(1, &["events", "--since", "1h", "--until", "0s"]).ok();
    assert_eq!(happened, since);
    assert!(!Path::new(&out).exists() && !Path::new(&exported).exists());
    let json = compose(&lab, &folder, &["--dry-run", "--progress", "json", "stop", "web"]);
    assert!(json.stderr.contains("\"dry-run\":true"), "{json:?}");
    let refused = compose(&lab, &folder, &["--swarm", "--dry-run", "run", "web"]).fails();
    assert!(refused.contains("of a stack `up`, `down` and `restart` can be gone through"), "{refused}");
}
