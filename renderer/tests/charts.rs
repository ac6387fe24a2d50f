//! Tests the results of charts, and what happens with hostile charts.

#![allow(clippy::unwrap_used)]

mod texts;

use std::{fmt::Write as _, fs::File, process::Command, time::Duration};

use pipeline::{Entry, Looked};
use renderer::{Chart, Hook, Limits, Lookup, RenderedChart, Renderer, RendererError, Unrendered, Values, looked_up};
use serde_json::{Value, json};
use texts::{Script, Texts, children, real};
use worker::Cancel;

const CHART: &str = "apiVersion: v2\nname: shop\nversion: 1.0.0\n";

fn shop() -> Chart {
    Chart {
        path: "apps/shop".to_owned(),
        release_name: "blue".to_owned(),
        namespace: "shop".to_owned(),
        ..Chart::default()
    }
}

fn render(renderer: &Renderer, chart: &Chart, texts: &Texts) -> Result<RenderedChart, RendererError> {
    renderer.helm(chart, texts, &Cancel::new()).map_err(|error| match error {
        Unrendered::Renderer(error) => error,
        Unrendered::Repository(never) => match never {},
    })
}

/// What templates find if they look up the ConfigMap `settings`, one of the Nodes, all Services, or the Pods of all namespaces.
fn answers() -> Vec<String> {
    let answer = |(api_version, kind): (&str, &str), name, is_namespaced, objects: Vec<Value>| {
        let namespace = (kind != "Pod").then_some("shop");
        let looked = Looked { entry: Entry::Lookup(0), api_version, kind, namespace, name };
        looked_up(&looked, is_namespaced, objects)
    };
    let pod = |namespace: &str, name: &str| json!({"metadata": {"name": name, "namespace": namespace}});
    let service = |name: &str| json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"port": 1_234_567}});
    vec![
        answer(
            ("v1", "ConfigMap"),
            Some("settings"),
            true,
            vec![json!({"metadata": {"name": "settings"}, "data": {"a": "b"}})],
        ),
        answer(("v1", "ConfigMap"), Some("absent"), true, Vec::new()),
        answer(("v1", "Node"), Some("one"), false, vec![json!({"metadata": {"name": "one", "uid": "u1"}})]),
        answer(("v1", "Service"), None, true, vec![service("b"), service("a")]),
        answer(("apps/v1", "Deployment"), None, true, Vec::new()),
        answer(("v1", "Pod"), None, true, vec![pod("shop", "b"), pod("other", "a"), pod("shop", "a")]),
    ]
}

#[test]
fn lookups_find_what_the_request_has() {
    let renderer = Renderer::new(&real(), Limits::default());
    let chart = Chart { lookup: Some(answers()), ..shop() };
    let found = |expression: &str| {
        let rendered = render(&renderer, &chart, &one(&format!("kind: ConfigMap\nfound: {{{{ {expression} }}}}")));
        let rendered = rendered.unwrap_or_else(|error| panic!("{expression}: {error}"));
        assert!(rendered.lookups.is_empty());
        let yaml = rendered.objects[0].object.yaml.clone();
        yaml.trim_start_matches("kind: ConfigMap\nfound: ").trim_end().to_owned()
    };
    for (expression, expected) in [
        ("(lookup `v1` `ConfigMap` `shop` `settings`).data.a", "b"),
        (
            "(lookup `v1` `ConfigMap` `shop` `settings`) | toJson",
            r#"{"apiVersion":"v1","data":{"a":"b"},"kind":"ConfigMap","metadata":{"name":"settings"}}"#,
        ),
        ("lookup `v1` `ConfigMap` `shop` `absent` | toJson", "{}"),
        // Helm ignores the namespace if the kind has none.
        ("(lookup `v1` `Node` `` `one`).metadata.uid", "u1"),
        ("(lookup `v1` `Node` `shop` `one`).metadata.uid", "u1"),
        (
            "range (lookup `v1` `Service` `shop` ``).items }}{{ .metadata.name }}{{ .spec.port }},{{ end",
            "a1234567,b1234567,",
        ),
        ("(lookup `v1` `Service` `shop` ``).kind", "ServiceList"),
        ("(lookup `v1` `Service` `shop` `b`).metadata.name", "b"),
        ("lookup `v1` `Service` `shop` `c` | len", "0"),
        ("(lookup `apps/v1` `Deployment` `shop` ``).items | len", "0"),
        (
            "range (lookup `v1` `Pod` `` ``).items }}{{ .metadata.namespace }}/{{ .metadata.name }},{{ end",
            "other/a,shop/a,shop/b,",
        ),
        ("range (lookup `v1` `Pod` `shop` ``).items }}{{ .metadata.name }},{{ end", "a,b,"),
        ("(lookup `v1` `Pod` `shop` `a`).metadata.namespace", "shop"),
        ("lookup `v1` `Pod` `other` `b` | len", "0"),
        // What a template does to a result has no effect on the next lookup.
        (
            "$_ := set (lookup `v1` `ConfigMap` `shop` `settings`).data `a` `x` }}{{ (lookup `v1` `ConfigMap` `shop` `settings`).data.a",
            "b",
        ),
    ] {
        assert_eq!(found(expression), expected, "{expression}");
    }
}

#[test]
fn a_lookup_that_the_request_does_not_have_is_refused_with_its_place() {
    let renderer = Renderer::new(&real(), Limits::default());
    let chart = Chart { lookup: Some(answers()), ..shop() };
    let refused = |texts: &Texts| {
        let error = render(&renderer, &chart, texts).expect_err("it is rendered");
        assert_eq!((error.reason(), error.is_terminal()), ("NotReproducible", true), "{error}");
        error.to_string()
    };
    let helpers = "{{ define \"secret\" }}\n{{ (lookup \"v1\" \"Secret\" \"shop\" \"db\").data.password }}\n{{ end }}";
    let texts = Texts::of(&[
        ("apps/shop/Chart.yaml", CHART),
        ("apps/shop/templates/_helpers.tpl", helpers),
        ("apps/shop/templates/a.yaml", "kind: ConfigMap\nfound: {{ include \"secret\" . }}\n"),
    ]);
    let told = refused(&texts);
    let place =
        "apps/shop/templates/_helpers.tpl:2 looks up v1 Secret shop/db in the cluster, and Secrets cannot be looked up";
    assert!(told.starts_with(place) && told.contains("helm.valuesFrom with sealedSecret"), "{told}");
    for (expression, part) in [
        (
            "lookup `v1` `ConfigMap` `other` `settings`",
            "add {apiVersion: v1, kind: ConfigMap, namespace: other, name: settings} there",
        ),
        (
            "lookup `v1` `ConfigMap` `shop` ``",
            "looks up all v1 ConfigMap in shop in the cluster, and helm.lookup of the Sync does not have it: add {apiVersion: v1, kind: ConfigMap, namespace: shop} there",
        ),
        (
            "lookup `v1` `Service` `` ``",
            "looks up all v1 Service in the cluster, and a lookup without a namespace means all namespaces: let the template name a namespace, add {apiVersion: v1, kind: Service, allNamespaces: true} to helm.lookup of the Sync",
        ),
        (
            "lookup `v1` `Pod` `` `a`",
            "looks up v1 Pod a in the cluster, and such an object is in a namespace: let the template",
        ),
        (
            "lookup `v1` `Other` `` ``",
            "add {apiVersion: v1, kind: Other} there, with allNamespaces: true if such objects are in namespaces, or set",
        ),
        ("lookup `v1` `Node` `` `two`", "add {apiVersion: v1, kind: Node, name: two} there"),
        // The template fails because the lookup finds nothing.
        ("required `it is missing` (lookup `v1` `Lease` `shop` `a`).spec", "looks up v1 Lease shop/a"),
        (
            "lookup `v1` `Lease` `shop` `a` }} {{ lookup `v1` `Lease` `shop` `b`",
            "the chart also looks up v1 Lease shop/b",
        ),
    ] {
        let told = refused(&one(&format!("kind: ConfigMap\n\nfound: {{{{ {expression} }}}}")));
        assert!(
            told.starts_with("apps/shop/templates/all.yaml:3 looks up ") && told.contains(part),
            "{expression}: {told}"
        );
    }
    let many = "{{ range until 20 }}{{ lookup \"v1\" \"Lease\" \"shop\" (toString .) }}{{ end }}";
    let told = refused(&one(many));
    assert!(told.ends_with("v1 Lease shop/5, 14 more"), "{told}");
}

/// A chart with one template.
fn one(template: &str) -> Texts {
    Texts::of(&[("apps/shop/Chart.yaml", CHART), ("apps/shop/templates/all.yaml", template)])
}

fn fails(template: &str, limits: Limits) -> RendererError {
    let renderer = Renderer::new(&real(), limits);
    let error = render(&renderer, &shop(), &one(template)).expect_err(template);
    // The next render gets another process.
    assert!(render(&renderer, &shop(), &one("kind: ConfigMap")).is_ok(), "after {template}");
    error
}

#[test]
fn objects_tell_where_they_come_from_and_what_they_are() {
    let job = "kind: Job\nmetadata:\n  annotations:\n    helm.sh/hook: pre-install,pre-upgrade\n    \
               helm.sh/hook-weight: \"-3\"\n    helm.sh/hook-delete-policy: hook-succeeded\n";
    let texts = Texts::of(&[
        ("apps/shop/Chart.yaml", CHART),
        ("apps/shop/crds/a.yaml", "kind: CustomResourceDefinition\n"),
        ("apps/shop/charts/c/Chart.yaml", "apiVersion: v2\nname: cache\nversion: 1.0.0\n"),
        ("apps/shop/charts/c/templates/a.yaml", "kind: Service\nname: {{ .Values.name }}"),
        ("apps/shop/templates/job.yaml", job),
        ("apps/shop/templates/NOTES.txt", "{{ .Release.Name }} in {{ .Release.Namespace }}"),
        ("apps/shop/templates/l.yaml", "kind: ConfigMap\nfound: {{ lookup \"v1\" \"Secret\" \"a\" \"b\" }} {{ now }}"),
        ("apps/values.yaml", "cache: {name: of-a-file}"),
    ]);
    let values = vec![
        Values::File("apps/values.yaml".to_owned()),
        Values::Yaml { name: "inline".to_owned(), text: "cache: {name: inline}".to_owned() },
        Values::Set("cache.name=set".to_owned()),
    ];
    let chart = Chart { include_crds: true, values, ..shop() };
    let renderer = Renderer::new(&real(), Limits::default());
    let rendered = render(&renderer, &chart, &texts).unwrap();
    let told: Vec<_> =
        rendered.objects.iter().map(|one| (one.object.origin.as_str(), one.source.as_str(), one.crd)).collect();
    let expected = [
        ("apps/shop/crds/a.yaml", "shop/crds/a.yaml", true),
        ("apps/shop/templates/l.yaml", "shop/templates/l.yaml", false),
        ("apps/shop/charts/c/templates/a.yaml", "shop/charts/cache/templates/a.yaml", false),
        ("apps/shop/templates/job.yaml", "shop/templates/job.yaml", false),
    ];
    assert_eq!(told, expected);
    assert_eq!(rendered.objects[2].object.yaml, "kind: Service\nname: set");
    let hook = Hook {
        events: vec!["pre-install".to_owned(), "pre-upgrade".to_owned()],
        weight: -3,
        delete_policies: vec!["hook-succeeded".to_owned()],
    };
    let hooks: Vec<_> = rendered.objects.iter().map(|one| one.hook.clone()).collect();
    assert_eq!(hooks, [None, None, None, Some(hook)]);
    assert_eq!(rendered.notes, "blue in shop");
    let lookup = Lookup {
        api_version: "v1".to_owned(),
        kind: "Secret".to_owned(),
        namespace: "a".to_owned(),
        name: "b".to_owned(),
    };
    assert_eq!(rendered.lookups, [lookup]);
    assert_eq!(rendered.nondeterministic, ["now"]);
    // No data of one render is left for the next one.
    let next = render(&renderer, &shop(), &one("kind: ConfigMap")).unwrap();
    assert_eq!((next.objects.len(), next.lookups.len(), next.nondeterministic.len()), (1, 0, 0));
    assert_eq!(next.notes, "");
}

#[test]
fn only_files_of_the_chart_are_asked_for_and_none_that_it_ignores() {
    let texts = Texts::of(&[
        ("apps/other/a.yaml", "a"),
        ("apps/shop/.helmignore", "docs/\nbig.*\n"),
        ("apps/shop/Chart.yaml", CHART),
        ("apps/shop/big.bin", "a"),
        ("apps/shop/docs/deep/a.md", "a"),
        ("apps/shop/files/a.txt", "a"),
        ("values/production.yaml", "a: b"),
    ]);
    let chart = Chart { values: vec![Values::File("values/production.yaml".to_owned())], ..shop() };
    render(&Renderer::new(&real(), Limits::default()), &chart, &texts).unwrap();
    let mut asked = texts.asked.lock().unwrap().clone();
    asked.sort();
    let expected = [
        "apps/shop",
        "apps/shop/.helmignore",
        "apps/shop/Chart.yaml",
        // The renderer learns that this is a folder only when it requests the path.
        "apps/shop/docs",
        "apps/shop/files",
        "apps/shop/files/a.txt",
        "values/production.yaml",
    ];
    assert_eq!(asked, expected);
}

#[test]
fn templates_that_grow_without_end_end_at_the_limit_of_memory() {
    let mut doubled = format!("{{{{ define \"t0\" }}}}{}{{{{ end }}}}\n", "0123456789".repeat(10_000));
    for at in 1..40 {
        let inner = format!("{{{{ include \"t{}\" . }}}}", at - 1);
        writeln!(doubled, "{{{{ define \"t{at}\" }}}}{inner}{inner}{{{{ end }}}}").unwrap();
    }
    doubled += "{{ include \"t39\" . }}";
    let limits = Limits { memory: 256 << 20, ..Limits::default() };
    for template in [&doubled, "{{ repeat 1000000000 \"0123456789\" }}", "{{ until 1000000000 | len }}"] {
        let error = fails(template, limits);
        assert!(matches!(error, RendererError::Memory(_)), "{error}");
        assert!(error.is_terminal());
    }
}

#[test]
fn templates_that_run_without_end_are_killed() {
    let limits = Limits { time: Duration::from_secs(2), ..Limits::default() };
    let error = fails("{{ range until 100000 }}{{ range until 100000 }}{{ end }}{{ end }}", limits);
    assert!(matches!(error, RendererError::TimedOut(_)), "{error}");
}

#[test]
fn templates_that_need_each_other_without_end_are_refused() {
    let itself = fails("{{ define \"a\" }}{{ template \"a\" . }}{{ end }}{{ template \"a\" . }}", Limits::default());
    assert!(itself.to_string().contains("exceeded maximum template depth"), "{itself}");
    let mut circle = String::new();
    for at in 0..200 {
        writeln!(circle, "{{{{ define \"t{at}\" }}}}{{{{ include \"t{}\" . }}}}{{{{ end }}}}", (at + 1) % 200).unwrap();
    }
    let circle = fails(&format!("{circle}{{{{ include \"t0\" . }}}}"), Limits::default());
    assert!(matches!(circle, RendererError::Depth), "{circle}");
    assert!(itself.is_terminal() && circle.is_terminal());
}

#[test]
fn archives_with_too_much_in_them_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let pack = |archive: &str, from: &str| {
        let made = Command::new("tar").args(["-czf", archive, from]).current_dir(folder.path()).status().unwrap();
        assert!(made.success());
        std::fs::read(folder.path().join(archive)).unwrap()
    };
    std::fs::create_dir(folder.path().join("bomb")).unwrap();
    std::fs::write(folder.path().join("bomb/Chart.yaml"), "apiVersion: v2\nname: bomb\nversion: 1.0.0\n").unwrap();
    File::create(folder.path().join("bomb/zeros")).unwrap().set_len(200 << 20).unwrap();
    let bomb = pack("bomb.tgz", "bomb");
    assert!(bomb.len() < 1 << 20);
    File::create(folder.path().join("bomb/zeros")).unwrap().set_len(15 << 20).unwrap();
    let small = pack("small.tgz", "bomb");
    let with = |archives: &[(&str, &Vec<u8>)]| {
        let mut texts = one("kind: ConfigMap");
        let archives = archives.iter().map(|(name, bytes)| (format!("apps/shop/charts/{name}.tgz"), (*bytes).clone()));
        texts.files.extend(archives);
        texts
    };
    // In the second chart, each of the three archives is small enough, but all together are too large.
    let shops = [with(&[("bomb", &bomb)]), with(&[("a", &small), ("b", &small), ("c", &small)])];
    let renderer = Renderer::new(&real(), Limits::default());
    for texts in shops {
        let error = render(&renderer, &shop(), &texts).expect_err("it is too large");
        assert!(
            matches!(&error, RendererError::Failed(why) if why.contains(".tgz: the archives of the chart contain more than 32 MiB")),
            "{error}"
        );
    }
    assert_eq!(render(&renderer, &shop(), &with(&[("a", &small)])).unwrap().objects.len(), 1);
}

#[test]
fn a_process_that_is_killed_is_told_of_and_another_follows() {
    let memory = (300 << 20) + 8192;
    let renderer = Renderer::new(&real(), Limits { memory, ..Limits::default() });
    let endless = one("{{ range until 1000000 }}{{ range until 1000000 }}{{ end }}{{ end }}");
    std::thread::scope(|scope| {
        let rendered = scope.spawn(|| render(&renderer, &shop(), &endless));
        // When the renderer requests the template, the render has begun.
        while !endless.asked.lock().unwrap().iter().any(|path| path.ends_with("all.yaml")) {
            std::thread::yield_now();
        }
        for pid in children(memory) {
            Command::new("kill").args(["-9", &pid]).status().unwrap();
        }
        let error = rendered.join().unwrap().expect_err("it was killed");
        assert!(matches!(&error, RendererError::Died(how) if how.contains('9')), "{error}");
        assert!(!error.is_terminal());
    });
    assert!(render(&renderer, &shop(), &one("kind: ConfigMap")).is_ok());
}

#[test]
fn a_chart_that_the_process_has_not_read_is_not_believed() {
    let script = |frames: &[(char, &str)]| {
        let script = Script::sending(frames);
        let chart = Chart { values: vec![Values::File("values.yaml".to_owned())], ..shop() };
        let mut texts = one("password: {{ randAlphaNum 10 }}");
        texts.files.insert("values.yaml".to_owned(), b"a: b".to_vec());
        let end = render(&script.renderer(Limits::default()), &chart, &texts);
        (end, texts.asked.into_inner().unwrap())
    };
    let result = |origin: &str| {
        let object = json!({"origin": origin, "yaml": "kind: ConfigMap"});
        json!({"objects": [object], "lookups": [], "nondeterministic": []}).to_string()
    };
    let (chart, values) = (('Q', "apps/shop/Chart.yaml"), ('Q', "values.yaml"));
    for (reads, origin, lie) in [
        (&[][..], "", "it has not read 'apps/shop/Chart.yaml'"),
        (&[values], "", "it has not read 'apps/shop/Chart.yaml'"),
        (&[chart], "", "it has not read 'values.yaml'"),
        (&[chart, values], "apps/shop/templates/all.yaml", "which it has not read"),
        (&[chart, values], "apps/shop/Chart.yaml/../templates/all.yaml", "which it has not read"),
    ] {
        let error = script(&[reads, &[('M', &result(origin))]].concat()).0.expect_err(lie);
        assert!(matches!(error, RendererError::Lied(_)) && error.to_string().contains(lie), "{error} instead of {lie}");
    }
    // Nobody but the process knows which functions the templates called. But the files that it read are known, so the
    // chart is rendered again when one of them changes.
    let template = ('Q', "apps/shop/templates/all.yaml");
    let (end, asked) = script(&[chart, values, template, ('M', &result(template.1))]);
    assert!(end.unwrap().nondeterministic.is_empty());
    assert_eq!(asked, [chart.1, values.1, template.1]);
}
