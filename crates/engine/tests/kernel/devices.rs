//! Devices that vendors describe. Source: Container Device Interface, SPEC.md.

use crate::kit::{Host, guest, guest_with, squashed};
use engine::{ContainerConfig, DeviceRequest};
use std::fs;

/// Two devices that are `/dev/null` and `/dev/zero`, a driver's folder, and a hook that keeps what it is told.
fn describe(host: &Host) {
    let folder = host.path("cdi");
    fs::create_dir_all(&folder).unwrap();
    fs::create_dir_all(host.path("driver")).unwrap();
    fs::write(host.path("driver/version"), "7").unwrap();
    // An ordinary user cannot make device nodes.
    let node = |name: &str, of: &str| {
        if squashed() { String::new() } else { format!("{{path: /dev/gpu-{name}, hostPath: {of}}}") }
    };
    let hook = |kind: &str| {
        let file = host.path(kind).display().to_string();
        format!(
            "{{hookName: {kind}, path: /bin/sh, args: [sh, -c, 'cat > {file}'], env: ['PATH=/bin:/usr/bin']}}"
        )
    };
    let text = format!(
        "
cdiVersion: 0.6.0
kind: example.com/gpu
containerEdits:
  env: [DRIVER=on]
  mounts: [{{hostPath: {}, containerPath: /driver, options: [ro, nosuid, rbind]}}]
  hooks: [{}, {}]
devices:
- {{name: a, containerEdits: {{env: [WHICH=a], deviceNodes: [{}]}}}}
- {{name: b, containerEdits: {{deviceNodes: [{}]}}}}
",
        host.path("driver").display(),
        hook("createContainer"),
        hook("poststop"),
        node("a", "/dev/null"),
        node("b", "/dev/zero"),
    );
    fs::write(folder.join("example.yaml"), text).unwrap();
}

fn asking(steps: &[&str], request: DeviceRequest) -> ContainerConfig {
    guest_with(steps, |config| config.host.device_requests = vec![request])
}

fn gpus(count: i64) -> DeviceRequest {
    DeviceRequest { count, capabilities: vec![vec!["gpu".into()]], ..DeviceRequest::default() }
}

#[test]
fn vendors_device_comes_with_all_that_it_needs() {
    let host = Host::new();
    describe(&host);
    let steps = ["variable:DRIVER", "variable:WHICH", "read:/driver/version"];
    let outcome = host.run(asking(&steps, gpus(1)));
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "on\na\n7"), "{outcome:?}");
    for (hook, status) in [("createContainer", "creating"), ("poststop", "stopped")] {
        let told = fs::read_to_string(host.path(hook)).unwrap();
        assert!(told.contains(&format!("\"status\":\"{status}\"")) && told.contains("\"bundle\""), "{told}");
    }
    let outcome = host.run(guest(&["variable:DRIVER"]));
    assert_eq!(outcome.stdout, "(unset)\n", "only for who asks");
}

#[test]
fn vendors_device_may_be_used_and_others_are_not_there() {
    let host = Host::new();
    describe(&host);
    if squashed() {
        return; // cannot have device nodes made
    }
    let named = DeviceRequest {
        driver: "cdi".into(),
        device_ids: vec!["example.com/gpu=b".into()],
        ..DeviceRequest::default()
    };
    // Written to: the cgroup lets it, and it is the device that it says.
    let outcome = host.run(asking(&["kind:/dev/gpu-b", "write:/dev/gpu-b=x", "list:/dev"], named));
    assert!(outcome.stdout.starts_with("char 1:5\n"), "{outcome:?}");
    assert!(!outcome.stdout.contains("gpu-a"), "{outcome:?}");
    let both = host.run(asking(&["kind:/dev/gpu-a", "kind:/dev/gpu-b"], gpus(-1)));
    assert_eq!(both.stdout, "char 1:3\nchar 1:5\n");
}

#[test]
fn device_that_is_not_there_keeps_the_container_from_starting() {
    let host = Host::new();
    describe(&host);
    let error = host.start_error(asking(&["exit:0"], gpus(3))).to_string();
    assert!(error.contains("3 devices of example.com/gpu are asked for, and this host has 2"), "{error}");
    // A driver that is gone is looked for again at each start.
    let id = host.create(asking(&["exit:0"], gpus(1)));
    fs::remove_file(host.path("cdi/example.yaml")).unwrap();
    let error = host.try_start(&id).unwrap_err().to_string();
    assert!(error.contains("could not select device driver \"\" with capabilities: [[gpu]]"), "{error}");
    describe(&host);
    host.try_start(&id).unwrap();
    assert_eq!(host.wait(&id), 0);
}

#[test]
fn hook_that_fails_is_told_with_its_words_and_leaves_nothing() {
    let host = Host::new();
    describe(&host);
    for hook in ["prestart", "createRuntime", "createContainer", "poststart"] {
        let text = format!(
            "{{cdiVersion: 0.6.0, kind: bad.com/gpu, devices: [{{name: x, containerEdits: {{hooks: [\
             {{hookName: {hook}, path: /bin/sh, args: [sh, -c, 'echo no driver >&2; exit 3']}}]}}}}]}}"
        );
        fs::write(host.path("cdi/bad.yaml"), text).unwrap();
        let request = DeviceRequest {
            driver: "cdi".into(),
            device_ids: vec!["bad.com/gpu=x".into()],
            ..DeviceRequest::default()
        };
        let id = host.create(asking(&["park"], request));
        let error = crate::kit::chain(&host.try_start(&id).unwrap_err());
        let words = format!("error running {hook} hook #0");
        assert!(error.contains(&words) && error.contains("no driver"), "{error}");
        // Also the program that ran already when its poststart hook failed.
        let run = host.path("run/c").join(&id);
        assert!(!run.exists() && !host.inspect(&id).state.is_running(), "{hook} left {}", run.display());
    }
}
