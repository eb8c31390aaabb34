//! Templates beside what Go's `text/template` 1.27 with Docker CLI's functions makes of them (`missingkey=error`).

use serde_json::json;
use template::{Error, Template, Value, Words, fill};

/// No functions but Go's own, and one that joins.
struct Plain;

impl Words for Plain {
    fn knows(&self, name: &str) -> bool {
        name == "upper"
    }

    fn call(&self, _name: &str, args: &[&Value]) -> Result<Value, String> {
        match args {
            [Value::String(text)] => Ok(text.to_uppercase().into()),
            _ => Err("one text".to_owned()),
        }
    }

    fn printed(&self, name: &str, value: &Value) -> Option<String> {
        let nanos = value.as_i64().filter(|_| name == "Delay")?;
        Some(template::duration(nanos))
    }

    fn method(&self, _on: &Value, name: &str, args: &[&Value]) -> Option<Result<Value, String>> {
        (name == "Twice").then(|| Ok(format!("{0}{0}", template::plain(args[0])).into()))
    }
}

fn dot() -> Value {
    json!({
        "Name": "web", "Replicas": 3, "Empty": "", "Zero": 0, "Yes": true, "Null": null, "Ratio": 0.5,
        "Labels": {"tier": "gold", "a": "b"}, "Ports": [80, 443], "Nets": [{"N": "x"}, {"N": "y"}], "None": [],
        "Spec": {"Mode": {"Global": {}}, "Image": "busybox:1"}
    })
}

#[test]
fn a_template_becomes_what_go_makes_of_it() {
    for (text, wanted) in [
        ("plain { text }", "plain { text }"),
        ("{{.Name}}/{{ .Spec.Image }}", "web/busybox:1"),
        (
            "{{.Labels}} {{.Ports}} {{.Ratio}} {{.Yes}} {{.Null}}",
            "map[a:b tier:gold] [80 443] 0.5 true <no value>",
        ),
        ("{{index .Labels \"tier\"}}{{index .Labels \"nope\"}}", "gold"),
        ("{{index .Ports 1}} {{index .Nets 0 \"N\"}} {{(index .Nets 1).N}}", "443 x y"),
        ("{{range .Ports}}{{.}} {{end}}", "80 443 "),
        ("{{range $i, $p := .Ports}}{{if $i}},{{end}}{{$p}}{{end}}", "80,443"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a=b;tier=gold;"),
        ("{{range $v := .Labels}}{{$v}}{{$.Name}} {{end}}", "bweb goldweb "),
        ("{{range .None}}x{{else}}none{{end}}", "none"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{range .Ports}}{{if eq . 443}}{{break}}{{end}}{{.}}{{end}}", "80"),
        ("{{range .Ports}}{{if eq . 80}}{{continue}}{{end}}{{.}}{{end}}", "443"),
        ("{{if eq .Name \"web\"}}yes{{else}}no{{end}}", "yes"),
        ("{{if .Empty}}a{{else if .Zero}}b{{else if .Yes}}c{{else}}d{{end}}", "c"),
        ("{{with .Spec}}{{.Image}}{{$.Name}}{{end}}{{with .Empty}}x{{else}}y{{end}}", "busybox:1weby"),
        ("{{with .Empty}}x{{else with .Name}}{{.}}{{end}}", "web"),
        ("{{$x := 1}}{{if .Yes}}{{$x = 2}}{{end}}{{$x}}", "2"),
        ("{{$x := 1}}{{if .Yes}}{{$x := 2}}{{end}}{{$x}}", "1"),
        ("{{printf \"%s-%03d\" .Name 7}}", "web-007"),
        ("{{.Name | printf \"%q\"}}", "\"web\""),
        ("{{.Name | upper | printf \"%-6s|%6s|\" \"a\"}}", "a     |   WEB|"),
        ("{{printf \"%v %d %s\" .Ports .Ports .Labels}}", "[80 443] [80 443] map[a:b tier:gold]"),
        (
            "{{printf \"%x %X %o %b %c %U %+d %5.1f|%t\" 255 255 8 5 65 65 3 1.25 true}}",
            "ff FF 10 101 A U+0041 +3   1.2|true",
        ),
        ("{{printf \"%d %s %%\" \"x\" 1}}", "%!d(string=x) %!s(int=1) %"),
        ("{{printf \"%s\"}} {{printf \"a\" 1}}", "%!s(MISSING) a%!(EXTRA int=1)"),
        ("{{printf \"%*d|%.2s\" 5 7 \"abc\"}}", "    7|ab"),
        ("{{print 1 2 \"a\" \"b\" 3}}|{{println 1 \"a\"}}", "1 2ab3|1 a\n"),
        ("{{len .Name}} {{len .Ports}} {{len .Labels}}", "3 2 2"),
        ("{{slice .Name 1}} {{slice .Name 0 2}} {{slice .Ports 1}}", "eb we [443]"),
        ("{{and .Yes .Name}} {{or .Empty .Zero .Name}} {{not .Yes}}", "web web false"),
        ("{{if or .Yes (index .Ports 9)}}short{{end}}", "short"),
        (
            "{{eq .Replicas 1 2 3}} {{ne .Name \"x\"}} {{lt 1 2}} {{ge \"b\" \"a\"}} {{gt 1.5 1.0}} {{le 2 1}}",
            "true true true true true false",
        ),
        ("a  {{- \" b \" -}}  c", "a b c"),
        ("{{.Name -}} x", "webx"),
        ("a {{/* no */}}b {{- /* no */ -}} c", "a bc"),
        ("{{\"\\t\\x41\\u00e9\\\"\"}}{{`\\n`}}{{'a'}}{{0x10}}{{1e3}}{{-5}}", "\tAé\"\\n97161000-5"),
        ("{{html \"<a href='x'>\"}} {{urlquery \"a b&c\"}}", "&lt;a href=&#39;x&#39;&gt; a+b%26c"),
        ("{{.Twice .Name}} {{\"a\" | .Twice}}", "webweb aa"),
        ("{{1e21}} {{0.00001}} {{100000000.0}}", "1e+21 1e-05 1e+08"),
        ("{{(printf \"%s\" .Name) | upper}}", "WEB"),
        ("{{if and (eq .Name \"web\") (not .Empty)}}x{{end}}", "x"),
        ("}} {{\"}}\"}}", "}} }}"),
    ] {
        assert_eq!(fill(text, &dot(), &Plain), Ok(wanted.to_owned()), "{text}");
    }
}

#[test]
fn what_is_no_template_is_refused_before_anything_is_made_with_line_and_reason() {
    for (text, line, why) in [
        ("{{.Name", 1, "unclosed action"),
        ("a\n\n{{nope .Name}}", 3, "function \"nope\" not defined"),
        ("{{if .Name}}x", 1, "{{if}} has no {{end}}"),
        ("{{end}}", 1, "unexpected {{end}}"),
        ("{{else}}", 1, "unexpected {{else}}"),
        ("{{}}", 1, "missing value"),
        ("{{$x}}", 1, "undefined variable"),
        ("{{range $x := .Ports}}{{end}}{{$x}}", 1, "undefined variable"),
        ("{{$a, $b := .Name}}", 1, "too many declarations"),
        ("{{break}}", 1, "outside {{range}}"),
        ("{{.Name | 3}}", 1, "non executable"),
        ("{{(.Name}}", 1, "unclosed left paren"),
        ("{{.Name)}}", 1, "unexpected right paren"),
        ("{{\"a}}", 1, "unterminated quoted string"),
        ("{{/* a }}", 1, "unclosed comment"),
        ("{{define \"x\"}}{{end}}", 1, "{{define}} is not supported"),
        ("{{1x}}", 1, "bad number"),
        ("{{nil}}", 1, "nil is not a command"),
        ("{{.Name!}}", 1, "bad character"),
    ] {
        match Template::parse(text, &Plain).map(|_| ()) {
            Err(Error::Parse { line: at, why: said }) => {
                assert_eq!(at, line, "{text}");
                assert!(said.contains(why), "{text}: {said}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn what_is_not_there_or_does_not_fit_is_an_error() {
    for (text, why) in [
        ("{{.Nope}}", "Nope"),
        ("{{.Name.Nope}}", "can't evaluate field Nope in string"),
        ("{{.Null.Nope}}", "nil data"),
        ("{{index .Ports 2}}", "out of range"),
        ("{{index .Name}}{{len 3}}", "len of type int"),
        ("{{eq .Name 1}}", "incompatible types"),
        ("{{.Name 1}}", "cannot be invoked"),
        ("{{1 2}}", "can't give argument"),
        ("{{range .Name}}{{end}}", "can't iterate"),
        ("{{upper 1}}", "error calling upper: one text"),
        ("{{slice .Name 2 1}}", "invalid slice"),
    ] {
        let error = fill(text, &dot(), &Plain).expect_err(text).to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn no_template_costs_more_than_its_bound() {
    let doubling = format!("{{{{$x := \"0123456789\"}}}}{}", "{{$x = printf \"%s%s\" $x $x}}".repeat(60));
    let nested = format!("{}{}", "{{range 1000}}".repeat(6), "{{end}}".repeat(6));
    let wide = "{{printf \"%1000000s\" \"\"}}".repeat(100);
    let huge = "{{range 9223372036854775807}}x{{end}}";
    let one_format = format!("{{{{printf \"{}\" {}}}}}", "%1000000d".repeat(1000), "1 ".repeat(1000));
    let many_args = format!("{{{{$x := printf \"%1000000s\" \"\"}}}}{{{{print {}}}}}", "$x ".repeat(1000));
    let asked = "{{range 1000}}{{range 1000}}{{index $.Labels \"nope\"}}{{end}}{{end}}";
    for text in [doubling.as_str(), &nested, &wide, huge, &one_format, &many_args, asked] {
        let error = fill(text, &dot(), &Plain).expect_err("an end").to_string();
        assert!(error.contains("costs more than"), "{error}");
    }
    for deep in
        ["{{if .Yes}}".repeat(10_000), format!("{{{{{}1{}}}}}", "(".repeat(10_000), ")".repeat(10_000))]
    {
        let error = fill(&deep, &dot(), &Plain).expect_err("an end").to_string();
        assert!(error.contains("nests deeper"), "{error}");
    }
    assert_eq!(fill("{{printf \"%9999999d\" 1}}", &dot(), &Plain), Ok("%!(BADWIDTH)1".to_owned()));
}

/// The texts are those of Go's `time.Duration.String` and `time.Time.String`.
#[test]
fn durations_and_times_are_printed_as_go_does() {
    for (nanos, text) in [
        (0, "0s"),
        (1, "1ns"),
        (1_100, "1.1\u{b5}s"),
        (2_200_000, "2.2ms"),
        (50_000_000, "50ms"),
        (3_300_000_000, "3.3s"),
        (10_000_000_000, "10s"),
        (90_000_000_000, "1m30s"),
        (245_001_000_000, "4m5.001s"),
        (18_367_001_000_000, "5h6m7.001s"),
        (7_776_000_000_000_000, "2160h0m0s"),
        (-1_500_000_000, "-1.5s"),
        (i64::MIN, "-2562047h47m16.854775808s"),
    ] {
        assert_eq!(template::duration(nanos), text);
    }
    for (json, text) in [
        ("2026-12-01T10:00:00.120000000Z", "2026-12-01 10:00:00.12 +0000 UTC"),
        ("2026-12-01T10:00:00Z", "2026-12-01 10:00:00 +0000 UTC"),
        ("2026-12-01T10:00:00.5+02:00", "2026-12-01 10:00:00.5 +0200 +0200"),
        ("0001-01-01T00:00:00Z", "0001-01-01 00:00:00 +0000 UTC"),
    ] {
        assert_eq!(template::time(json).as_deref(), Some(text));
    }
    assert_eq!(template::time("yesterday"), None);
}

#[test]
fn a_field_is_printed_as_its_type_says_and_counted_as_what_it_is() {
    let dot = json!({"Update": {"Delay": 10_000_000_000_i64, "Parallelism": 2}});
    for (text, wanted) in [
        ("{{.Update.Delay}} {{.Update.Parallelism}}", "10s 2"),
        ("{{with .Update}}{{.Delay}}{{end}}", "10s"),
        ("{{print .Update.Delay}} {{printf \"%v\" .Update.Delay}}", "10s 10s"),
        (
            "{{printf \"%d\" .Update.Delay}} {{printf \"%s is %03d\" .Update.Delay 7}}",
            "10000000000 10s is 007",
        ),
        ("{{if gt .Update.Delay 9000000000}}long{{end}}", "long"),
    ] {
        assert_eq!(fill(text, &dot, &Plain).unwrap(), wanted, "{text}");
    }
}
