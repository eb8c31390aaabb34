//! What services write as templates, and what their tasks get.

use model::{ContainerSpec, Labels, Mount, MountKind};
use template::task::{Payload, Values, container};

fn values() -> Values {
    Values::example("web", &Labels::from([("tier".to_owned(), "gold".to_owned())]))
}

fn env(value: &str) -> ContainerSpec {
    ContainerSpec { env: vec![format!("X={value}")], ..ContainerSpec::default() }
}

#[test]
fn placeholders_pipes_and_labels_are_gos() {
    for (text, wanted) in [
        ("{{.Service.Name}}-{{.Task.Slot}} on {{.Node.Hostname}}", "web-1 on node"),
        ("{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}", "linux/x86_64"),
        ("{{index .Service.Labels \"tier\"}}{{index .Service.Labels \"nope\"}}", "gold"),
        ("{{.Service.Labels}}", "map[tier:gold]"),
        ("{{range $k, $v := .Service.Labels}}{{$k}}={{$v}}{{end}}", "tier=gold"),
        ("{{printf \"%s-%03d\" .Service.Name 7}}", "web-007"),
        ("{{if eq .Service.Name \"web\"}}yes{{else}}no{{end}}", "yes"),
        ("{{.Service.Name | printf \"%q\"}}", "\"web\""),
        ("{{.Service.Name -}} x", "webx"),
        ("{{join \"+\" .Service.Name \"a\"}}", "web+a"),
        ("{}{ not a template", "{}{ not a template"),
    ] {
        assert_eq!(container(&env(text), &values()).unwrap().env, [format!("X={wanted}")], "{text}");
    }
}

#[test]
fn every_field_that_docker_fills_in_is_filled_in_and_no_other() {
    let one = "{{.Task.Slot}}";
    let labels = |value: &str| Labels::from([("k".to_owned(), value.to_owned())]);
    let of = |value: &str, kept: &str| ContainerSpec {
        image: kept.to_owned(),
        hostname: Some(value.to_owned()),
        env: vec![format!("{one}={value}"), one.to_owned()],
        labels: labels(kept),
        args: vec![kept.to_owned()],
        mounts: vec![
            Mount {
                kind: MountKind::Volume {
                    name: Some(value.to_owned()),
                    driver: None,
                    driver_opts: labels(value),
                    labels: labels(value),
                    no_copy: false,
                },
                target: value.to_owned(),
                read_only: false,
            },
            Mount {
                kind: MountKind::Bind {
                    source: value.to_owned(),
                    propagation: None,
                    create: false,
                    recursion: model::BindRecursion::Enabled,
                },
                target: value.to_owned(),
                read_only: true,
            },
        ],
        ..ContainerSpec::default()
    };
    assert_eq!(container(&of(one, one), &values()).unwrap(), of("1", one));
}

#[test]
fn a_template_that_cannot_be_is_an_error_that_names_the_field_and_what_there_is() {
    for text in [
        "{{.Nope.Name}}",
        "{{.Task.Nope}}",
        "{{.Node.Hostname",
        "{{nope}}",
        "{{.Service.Labels.nope}}",
        "{{end}}",
    ] {
        let error = container(&env(text), &values()).expect_err(text).to_string();
        assert!(
            error.starts_with("expanding env failed: ") && error.contains(".Task.Slot"),
            "{text}: {error}"
        );
        let spec = ContainerSpec { hostname: Some(text.to_owned()), ..ContainerSpec::default() };
        let error = container(&spec, &values()).expect_err(text).to_string();
        assert!(error.starts_with("expanding hostname failed: "), "{text}: {error}");
    }
}

#[test]
fn whoever_may_ask_for_labels_is_told_them() {
    for text in ["{{.Service.Labels}}", "{{with .Service}}{{.Labels.tier}}{{end}}"] {
        assert!(env(text).asks_for_service_labels(), "{text}");
        assert!(
            ContainerSpec { hostname: Some(text.into()), ..Default::default() }.asks_for_service_labels()
        );
    }
    for text in ["{{.Service.Name}}", "Labels", ""] {
        assert!(!env(text).asks_for_service_labels(), "{text}");
    }
}

#[test]
fn data_with_a_template_driver_may_ask_for_its_containers_secrets_configs_and_variables() {
    let has = Payload {
        secrets: [("password", &b"hunter2"[..])].into(),
        configs: [("bytes", &b"\xff"[..])].into(),
        env: [("MODE", "fast")].into(),
    };
    let fill = |text: &str| values().payload(text.as_bytes(), &has);
    let text = "{{.Service.Name}}: {{secret \"password\"}} {{env \"MODE\"}}{{env \"NOPE\"}}";
    assert_eq!(fill(text).unwrap(), b"web: hunter2 fast");
    for (text, why) in [
        ("{{secret \"nope\"}}", "secret target nope not found"),
        ("{{config \"bytes\"}}", "not UTF-8"),
        ("{{secret}}", "one name"),
        ("{{", "unclosed action"),
    ] {
        let error = fill(text).expect_err(text).to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
    assert!(values().payload(b"\xff", &has).is_err());
}
