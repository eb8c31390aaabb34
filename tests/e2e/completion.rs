//! What a shell is offered while somebody types.

use crate::{load_hello, swarm, wait_for_replicas};
use testkit::Lab;

/// Returns what the shell offers for the last of these words.
fn offered(lab: &Lab, words: &[&str]) -> Vec<String> {
    let typed = [&["--", "rswarm"], words].concat();
    let said = lab.rswarm_with(1, &[("RSWARM_COMPLETE", "fish")], &typed).ok();
    said.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn names_of_what_is_there_are_offered_where_they_are_typed() {
    let lab = swarm(1, 1);
    load_hello(&lab, 1);
    let ok = |args: &[&str]| lab.rswarm(1, args).ok();
    ok(&["run", "-d", "--name", "wheel", "-v", "wine:/data", "rswarm/hello", "web"]);
    ok(&["network", "create", "wires"]);
    let file = lab.dir().join("stack.yml");
    let text = "name: shop\nservices:\n  web:\n    image: rswarm/hello\n    command: [web]\n    secrets: [word]\n\
                secrets: {word: {file: stack.yml}}\n";
    std::fs::write(&file, text).expect("a file");
    ok(&["deploy", "-y", "stack.yml"]);
    wait_for_replicas(&lab, 1, "shop_web", "1/1");

    for (words, wanted) in [
        (&["stop", "w"][..], "wheel"),
        (&["container", "inspect", "w"], "wheel"),
        (&["exec", "shop_web."], "shop_web.1"),
        (&["service", "ps", "sh"], "shop_web"),
        (&["scale", "sh"], "shop_web="),
        (&["stack", "ps", "s"], "shop"),
        (&["node", "inspect", "ho"], "host1"),
        (&["rmi", "rswarm/"], "rswarm/hello:latest"),
        (&["network", "inspect", "wi"], "wires"),
        (&["run", "--network", "wi"], "wires"),
        (&["volume", "rm", "wi"], "wine"),
        (&["secret", "inspect", "shop"], "shop_word"),
        (&["--context", "def"], "default"),
        (&["help", "serv"], "service"),
        (&["servi"], "service"),
    ] {
        let found = offered(&lab, words);
        assert!(found.contains(&wanted.to_owned()), "{words:?} offers {found:?}");
    }
    assert!(offered(&lab, &["network", "inspect", "wheel"]).is_empty(), "that is a container");
    // Where nobody answers nothing is offered, and nothing is said.
    let away = offered(&lab, &["-H", "unix:///nonexistent/socket", "stop", "w"]);
    assert!(away.is_empty(), "{away:?}");
}
