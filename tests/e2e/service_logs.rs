//! What a service's tasks print, on whichever host and whenever they come; and what templates make of them.

use crate::{SOON, load_hello, swarm};
use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};
use testkit::{Lab, wait_for};

fn deploy(lab: &Lab, name: &str, text: &str) -> testkit::Output {
    let file = lab.dir().join(format!("{name}.yaml"));
    std::fs::write(&file, text).expect("a file");
    lab.rswarm(1, &["deploy", "--detach", "--name", name, file.to_str().expect("a path")])
}

#[test]
fn logs_of_a_service_name_their_tasks_follow_later_ones_and_end_when_nobody_reads() {
    let lab = swarm(2, 1);
    load_hello(&lab, 1);
    // It says how it is used and ends; so there are always tasks that come later.
    let talk = "services:
  web:
    image: rswarm/hello
    command: [nothing]
    tty: TTY
    labels: {tier: gold}
    logging: {driver: json-file, options: {labels: tier}}
    deploy: {replicas: 2, restart_policy: {delay: 200ms}}
";
    deploy(&lab, "talk", &talk.replace("TTY", "false")).ok();
    let logs = |args: &[&str]| {
        let all = [&["service", "logs"][..], args, &["talk_web"]].concat();
        let output = lab.rswarm(1, &all);
        assert_eq!(output.code, 0, "{output:?}");
        // What went wrong is printed to standard error; so is what is passed on of it.
        output.stdout + &output.stderr
    };
    let lines = wait_for("lines of both tasks", SOON, || {
        let lines = logs(&["--timestamps", "--details"]);
        let both = ["talk_web.1.", "talk_web.2."].iter().all(|task| lines.contains(task));
        if both { Ok(lines) } else { Err(lines) }
    });
    let line = lines.lines().find(|line| line.contains("talk_web.1.")).expect("a line");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert!(words[0].starts_with("20") && words[0].ends_with('Z'), "{line}");
    assert!(words[1].contains("@host"), "{line}");
    assert_eq!(words[2..5], ["|", "tier=gold", "Error:"], "{line}");
    assert!(logs(&["--raw", "--tail", "1"]).starts_with("Error: usage: hello"));

    // The reader has enough after six lines of tasks that were not there yet, and the command ends with it.
    let socket = format!("unix://{}", lab.socket(1).display());
    let follow = ["-H", &socket, "service", "logs", "--follow", "--tail", "0", "--no-trunc", "talk_web"];
    let mut reader = Command::new(crate::program())
        .args(follow)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program");
    let lines = BufReader::new(reader.stderr.take().expect("its output")).lines();
    let mut tasks = std::collections::BTreeSet::new();
    for line in lines {
        tasks.insert(line.expect("a line").split('@').next().unwrap_or_default().to_owned());
        if tasks.len() == 6 {
            break;
        }
    }
    reader.kill().expect("the reader to be ended");
    reader.wait().expect("an end");
    assert_eq!(tasks.len(), 6, "each of them another task: {tasks:?}");

    // A terminal has one stream and no frames.
    deploy(&lab, "talk", &talk.replace("TTY", "true")).ok();
    wait_for("what a terminal shows", SOON, || {
        let output = lab.rswarm(1, &["service", "logs", "--raw", "talk_web"]);
        if output.stdout.contains("Error: usage: hello") { Ok(()) } else { Err(format!("{output:?}")) }
    });
    let refused = lab.rswarm(1, &["service", "logs", "talk_web"]).fails();
    assert!(refused.contains("only supported with --raw"), "{refused}");
}

#[test]
fn templates_of_a_service_are_filled_in_on_its_node_and_judged_before() {
    let lab = swarm(1, 1);
    load_hello(&lab, 1);
    let web = |name: &str| {
        format!(
            "services:
  web:
    image: rswarm/hello
    command: [web]
    hostname: '{{{{.Service.Name}}}}-{{{{.Task.Slot}}}}'
    environment:
      NAME: {name}
    deploy: {{labels: {{tier: gold}}}}
"
        )
    };
    let name =
        "'{{with index .Service.Labels \"tier\"}}{{.}}{{end}}-{{printf \"%03d\" 7}}@{{.Node.Hostname}}'";
    deploy(&lab, "t", &web(name)).ok();
    let id = wait_for("its container", SOON, || {
        let id = lab.rswarm(1, &["ps", "-q"]).ok();
        if id.trim().is_empty() {
            Err(format!("{:?}", lab.rswarm(1, &["service", "ps", "t_web"])))
        } else {
            Ok(id)
        }
    });
    let format = "{{.Config.Hostname}}{{range .Config.Env}} {{.}}{{end}}";
    let shown = lab.rswarm(1, &["inspect", "-f", format, id.trim()]).ok();
    assert!(shown.starts_with("t_web-1 ") && shown.contains(" NAME=gold-007@host1"), "{shown}");
    for (wrong, words) in [("'{{.Nope.Name}}'", "no field \"Nope\""), ("'{{.Task.Slot'", "unclosed action")] {
        let refused = deploy(&lab, "t", &web(wrong)).fails();
        assert!(refused.contains("expanding env failed") && refused.contains(words), "{refused}");
    }

    // The data of configs and secrets, by Docker's template driver.
    let with_data = format!(
        "{}    secrets: [password]
    configs: [{{source: app, target: /etc/app.conf}}]
secrets: {{password: {{file: password}}}}
configs:
  app:
    template_driver: golang
    content: '{{{{.Service.Name}}}} {{{{secret \"password\"}}}} {{{{env \"NAME\"}}}} {{{{index .Service.Labels \"tier\"}}}}'
",
        web("Ann")
    );
    std::fs::write(lab.dir().join("password"), "hunter2").expect("a file");
    deploy(&lab, "t", &with_data).ok();
    let copy = lab.dir().join("app.conf");
    wait_for("the config in its task", SOON, || {
        let id = lab.rswarm(1, &["ps", "-q"]).ok();
        let from = format!("{}:/etc/app.conf", id.trim());
        let copied = lab.rswarm(1, &["cp", &from, copy.to_str().expect("a path")]);
        match std::fs::read_to_string(&copy) {
            Ok(text) if text == "t_web hunter2 Ann gold" => Ok(()),
            other => Err(format!("{copied:?} {other:?} {:?}", lab.rswarm(1, &["service", "ps", "t_web"]))),
        }
    });
    let broken = with_data.replace("{{secret ", "{{nope ");
    let refused = deploy(&lab, "t", &broken).fails();
    assert!(refused.contains("config with a template driver") && refused.contains("nope"), "{refused}");

    // Lists and objects through templates, and for programs.
    let nodes = |format: &str| lab.rswarm(1, &["node", "ls", "--format", format]).ok();
    let json: serde_json::Value = serde_json::from_str(&nodes("json")).expect("JSON");
    let id = json["ID"].as_str().expect("an id");
    assert!(
        id.len() == 25 && id.chars().all(|c| c.is_ascii_alphanumeric()) && json["Self"] == true,
        "{json}"
    );
    assert_eq!(nodes("{{.ID}}{{if .Self}} *{{end}}").trim(), format!("{id} *"));
    assert_eq!(
        nodes("table {{.Hostname}}\\t{{upper .Status}}").lines().collect::<Vec<_>>(),
        ["HOSTNAME   STATUS", "host1      READY"]
    );
    let endpoint =
        "{{.Spec.Name}} {{len .Endpoint.VirtualIPs}}{{range .Endpoint.VirtualIPs}} {{json .Addr}}{{end}}";
    let shown = lab.rswarm(1, &["service", "inspect", "-f", endpoint, "t_web"]).ok();
    assert!(shown.starts_with("t_web 1 \"10."), "{shown}");
}

/// As `| head -1` does it.
#[test]
fn a_reader_that_has_enough_ends_a_command_quietly() {
    let lab = crate::lab(1);
    let socket = format!("unix://{}", lab.socket(1).display());
    for args in [&["info"][..], &["network", "ls"], &["version", "--format", "json"], &["ps"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let ended = Command::new(crate::program())
            .args(["-H", &socket])
            .args(args)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .and_then(std::process::Child::wait_with_output)
            .expect("the program");
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "", "{args:?}");
        assert_eq!(ended.status.code(), Some(141), "{args:?}");
    }
}
