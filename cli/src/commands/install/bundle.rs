//! The manifests of `deploy/`, changed by the choices of an installation.
//!
//! The manifests are changed as text, line by line, so that the printed text keeps the comments. Tests check that the
//! manifests have the lines that this module looks for.

use anyhow::Context;
use manifests::{Limits, parse};
use serde_json::{Value, json};

use super::{
    choices::{Choices, Rollout, Storage},
    memory,
};

const SERVICE_ACCOUNT: &str = include_str!("../../../../deploy/manifests/10-service-account.yaml");
const RBAC: &str = include_str!("../../../../deploy/manifests/20-rbac.yaml");
const CLUSTER_ADMIN: &str = include_str!("../../../../deploy/manifests/21-rbac-cluster-admin.yaml");
const USERS: &str = include_str!("../../../../deploy/manifests/22-rbac-users.yaml");
const MULTI_TENANT: &str = include_str!("../../../../deploy/multi-tenant/rbac.yaml");
const SERVICE: &str = include_str!("../../../../deploy/manifests/30-service.yaml");
const NETWORK_POLICY: &str = include_str!("../../../../deploy/manifests/35-network-policy.yaml");
const STORAGE: &str = include_str!("../../../../deploy/manifests/40-storage.yaml");
const DISRUPTION_BUDGET: &str = include_str!("../../../../deploy/replicas/disruption-budget.yaml");
const DEPLOYMENT: &str = include_str!("../../../../deploy/manifests/50-deployment.yaml");

/// Name of the controller's Deployment, and of most objects that belong to it.
pub const DEPLOYMENT_NAME: &str = "gitseal-controller";
/// Label of everything that an installation makes.
pub const LABEL: (&str, &str) = ("app.kubernetes.io/name", "gitseal");
/// Labels of the controller's Pods, as a selector.
pub const POD_LABELS: &str = "app.kubernetes.io/name=gitseal,app.kubernetes.io/component=controller";
/// Name of the ClusterRoleBinding that an installation for several teams does not have.
pub const CLUSTER_ADMIN_BINDING: &str = "gitseal-controller-cluster-admin";
/// Name of the ClusterRole, and of its binding, that only an installation for several teams has.
pub const WATCH: &str = "gitseal-controller-watch";
/// Name of the Role that allows everybody to ask for the certificate.
pub const PROXY_ROLE: &str = "gitseal-service-proxy";
/// Name of the ClusterRole of people who change Syncs and SealedSecrets.
pub const EDIT_ROLE: &str = "gitseal-edit";
/// Label that makes a ClusterRole a part of Kubernetes' own role `edit`, if it is "true".
pub const AGGREGATE_TO_EDIT: &str = "rbac.authorization.k8s.io/aggregate-to-edit";
/// Label on the Deployment: the version whose manifests are installed.
pub const VERSION_LABEL: &str = "app.kubernetes.io/version";
/// The default size of the controller's volume.
pub const VOLUME_SIZE: &str = "2Gi";
/// The namespace in the manifests.
const NAMESPACE: &str = "kube-system";
/// The name of the Service in the manifests.
const SERVICE_NAME: &str = "sealed-secrets-controller";

/// The image in the manifests. The name has no registry, because the image is in no public registry.
pub fn image() -> String {
    format!("{DEPLOYMENT_NAME}:{}", env!("CARGO_PKG_VERSION"))
}

/// The arguments that the manifests give the controller.
pub fn arguments() -> Vec<String> {
    DEPLOYMENT
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("- --"))
        .map(|flag| format!("--{flag}"))
        .collect()
}

/// The CustomResourceDefinitions and namespaces, as YAML texts. They stay when gitseal is removed, because deleting
/// them would delete what people made.
pub fn foundation<'a>(namespaces: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut texts: Vec<String> = crds::custom_resource_definitions().iter().map(crds::to_yaml).collect();
    texts.extend(namespaces.into_iter().filter(|namespace| *namespace != NAMESPACE).map(namespace_manifest));
    texts
}

fn namespace_manifest(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels:\n    \
         pod-security.kubernetes.io/enforce: restricted\n"
    )
}

/// The controller and its rights, as YAML texts in the order in which they are applied. Each may have several documents
/// and ends with a newline.
pub fn documents(choices: &Choices) -> Vec<String> {
    let admin = choices.tenancy.cluster_admin.then_some(CLUSTER_ADMIN);
    let watch = choices.tenancy.watch.then_some(MULTI_TENANT);
    let storage = matches!(choices.storage, Storage::Volume(_)).then_some(STORAGE);
    let budget = choices.has_disruption_budget().then_some(DISRUPTION_BUDGET);
    let rights = [SERVICE_ACCOUNT, RBAC].into_iter().chain(admin).chain(watch);
    let parts = [SERVICE, NETWORK_POLICY].into_iter().chain(storage).chain(budget).chain([DEPLOYMENT]);
    // The rights of people are applied first if people get fewer rights, and last if they get more.
    let (first, last) = if choices.people_edit_syncs() { (None, Some(USERS)) } else { (Some(USERS), None) };
    let files = first.into_iter().chain(rights).chain(parts).chain(last);
    files.map(|text| fill_in(choices, text)).collect()
}

/// The comment above the printed manifests.
pub fn header(is_foundation: bool) -> String {
    let text = if is_foundation {
        "# The CRDs and namespaces, which stay when gitseal is removed. NEVER `kubectl delete -f` this: deleting the CRDs\n\
         # deletes all SealedSecrets and their Secrets; deleting a namespace deletes everything in it, sealing keys too.\n"
    } else {
        "# The controller and its rights. The CRDs are not among them, so `kubectl delete -f` of these deletes no\n\
         # SealedSecret, no Secret, no key and nothing that was applied. To remove gitseal: `gitseal uninstall`.\n"
    };
    text.to_owned()
}

fn fill_in(choices: &Choices, text: &str) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let content = line.trim_start();
        let indent = &line[..line.len() - content.len()];
        let replaced = match &choices.storage {
            _ if content == "namespace: kube-system" => format!("namespace: {}", choices.namespace),
            _ if content.starts_with("image: ") => format!("image: {}", plain_or_quoted(&choices.image)),
            Storage::Volume(size) if content == "storage: 2Gi" => format!("storage: {size}"),
            Storage::Ephemeral if content == "persistentVolumeClaim:" => {
                let _claim_name = lines.next();
                format!("emptyDir:\n{indent}  sizeLimit: 2Gi")
            }
            Storage::Other(source) if content == "persistentVolumeClaim:" => {
                let _claim_name = lines.next();
                volume_source(source, indent)
            }
            _ if content.contains(SERVICE_NAME) && !content.starts_with('#') => {
                content.replace(SERVICE_NAME, &choices.service)
            }
            _ if content == format!("memory: {}", memory::USUAL_LIMIT) => {
                format!("memory: {}", memory::limit(&choices.arguments))
            }
            _ if content == "replicas: 1" => format!("replicas: {}", choices.replicas),
            _ if content == "type: Recreate" && choices.rollout == Rollout::Rolling => "type: RollingUpdate".to_owned(),
            _ if content.starts_with(AGGREGATE_TO_EDIT) => {
                format!("{AGGREGATE_TO_EDIT}: \"{}\"", choices.people_edit_syncs())
            }
            _ if content.starts_with("- --") => {
                while lines.next_if(|line| line.trim_start().starts_with("- --")).is_some() {}
                let arguments = choices.arguments.iter().map(|argument| format!("- {}", plain_or_quoted(argument)));
                arguments.collect::<Vec<_>>().join(&format!("\n{indent}"))
            }
            _ => content.to_owned(),
        };
        filled.push_str(indent);
        filled.push_str(&replaced);
        filled.push('\n');
    }
    filled
}

/// A text as a YAML scalar, in quotes if YAML needs them.
fn plain_or_quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,/@+".contains(c);
    // In YAML, a colon that is not followed by a space has no meaning.
    let is_text =
        text.starts_with(|c: char| c == '-' || c.is_ascii_alphabetic()) && text.len() > 2 && !text.ends_with(':');
    if is_text && text.chars().all(|c| is_plain(c) || c == ':') {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}

/// The volume source that the user chose, as YAML. Its value is written as JSON, which is also YAML.
fn volume_source(source: &Value, indent: &str) -> String {
    let fields = source.as_object().into_iter().flatten();
    let fields: Vec<_> = fields.map(|(kind, source)| format!("{kind}: {source}")).collect();
    fields.join(&format!("\n{indent}"))
}

/// The documents of `text` as a Kubernetes List.
pub fn list(text: &str) -> anyhow::Result<Value> {
    let objects =
        parse("gitseal install", text.as_bytes(), &Limits::default()).context("cannot read the generated manifests")?;
    let items: Vec<Value> = objects.into_iter().map(|object| Value::Object(object.body)).collect();
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::install::choices::Tenancy;

    fn default() -> Choices {
        Choices {
            namespace: NAMESPACE.into(),
            service: SERVICE_NAME.into(),
            image: image(),
            arguments: arguments(),
            tenancy: Tenancy::SINGLE_OWNER,
            storage: Storage::volume(),
            replicas: 1,
            rollout: Rollout::Recreate,
        }
    }

    fn objects(choices: &Choices) -> Vec<Value> {
        list(&documents(choices).join("---\n")).unwrap()["items"].as_array().unwrap().clone()
    }

    fn find<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
        objects.iter().find(|object| object["kind"] == kind).unwrap()
    }

    #[test]
    fn every_file_of_the_folder_is_installed() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/manifests");
        let all = documents(&default()).concat();
        for file in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            assert!(all.contains(&text), "not installed: {}", text.lines().next().unwrap());
        }
    }

    #[test]
    fn another_namespace_is_used_everywhere() {
        let objects = objects(&Choices { namespace: "gitops".into(), ..default() });
        let foundation = list(&foundation(["gitops"]).join("---\n")).unwrap();
        assert_eq!(find(foundation["items"].as_array().unwrap(), "Namespace")["metadata"]["name"], "gitops");
        assert_eq!(find(&objects, "ClusterRoleBinding")["subjects"][0]["namespace"], "gitops");
        for object in &objects {
            let text = object.to_string();
            assert!(!text.contains("\"kube-system\""), "{text}");
        }
    }

    #[test]
    fn another_service_is_named_everywhere() {
        let objects = objects(&Choices { service: "sealed-secrets".into(), ..default() });
        assert_eq!(find(&objects, "Service")["metadata"]["name"], "sealed-secrets");
        let proxied = ["http:sealed-secrets:", "http:sealed-secrets:http", "sealed-secrets"];
        assert!(objects.iter().any(|object| object["rules"][1]["resourceNames"] == json!(proxied)));
        assert!(objects.iter().all(|object| !object.to_string().contains(SERVICE_NAME)));
    }

    #[test]
    fn the_image_is_the_given_one() {
        let deployment = |choices: &Choices| find(&objects(choices), "Deployment").clone();
        let image = |of: &Value| of["spec"]["template"]["spec"]["containers"][0]["image"].clone();
        let usual = deployment(&default());
        assert_eq!(image(&usual), super::image());
        assert_eq!(usual["metadata"]["labels"][VERSION_LABEL], env!("CARGO_PKG_VERSION"));
        assert!(DEPLOYMENT.contains(&format!("image: {}\n", super::image())));
        let own = deployment(&Choices { image: "registry.example/gitseal:1".into(), ..default() });
        assert_eq!(image(&own), "registry.example/gitseal:1");
    }

    #[test]
    fn several_teams_get_no_cluster_admin() {
        let bindings = |choices: &Choices| {
            objects(choices).iter().filter(|object| object["roleRef"]["name"] == "cluster-admin").count()
        };
        let tenants = Choices { tenancy: Tenancy::MULTI_TENANT, ..default() };
        assert_eq!(bindings(&default()), 1);
        assert!(objects(&default()).iter().any(|object| object["metadata"]["name"] == CLUSTER_ADMIN_BINDING));
        assert_eq!(bindings(&tenants), 0);
        assert_eq!(objects(&tenants).iter().filter(|object| object["metadata"]["name"] == WATCH).count(), 2);
        let neither = Choices { tenancy: Tenancy::default(), ..default() };
        assert_eq!(objects(&neither).len(), objects(&default()).len() - 1);
    }

    #[test]
    fn people_get_no_status_and_edit_no_syncs_of_the_only_owner() {
        let role = |choices: &Choices, name: &str| {
            objects(choices).into_iter().find(|object| object["metadata"]["name"] == name).unwrap()
        };
        let label = |role: &Value, of: &str| {
            role["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{of}")].clone()
        };
        let bound = |tenancy, argument: &str| {
            let own = argument.split_whitespace().map(str::to_owned);
            Choices { arguments: arguments().into_iter().chain(own).collect(), tenancy, ..default() }
        };
        let tenants = bound(Tenancy::MULTI_TENANT, "--default-service-account=default");
        assert_eq!(label(&role(&default(), "gitseal-view"), "view"), "true");
        assert_eq!(label(&role(&default(), "gitseal-edit"), "edit"), "false");
        assert_eq!(label(&role(&tenants, "gitseal-edit"), "edit"), "true");
        let kinds =
            |choices: &Choices| objects(choices).iter().map(|object| object["kind"].clone()).collect::<Vec<_>>();
        assert_eq!(kinds(&tenants).last(), Some(&json!("ClusterRole")), "what widens comes last");
        assert_eq!(kinds(&default()).first(), Some(&json!("ClusterRole")), "what narrows comes first");
        // With any of these arguments, Syncs can have the controller's own rights.
        for argument in [
            "",
            "--default-service-account=",
            "--default-service-account",
            "--default-service-account --x",
            "--default-service-account=$(ACCOUNT)",
            "--default-service-account=a --default-service-account=",
        ] {
            let unbound = bound(Tenancy::MULTI_TENANT, argument);
            assert_eq!(label(&role(&unbound, "gitseal-edit"), "edit"), "false", "{argument}");
        }
        let apart = bound(Tenancy::MULTI_TENANT, "--default-service-account deployer");
        assert_eq!(label(&role(&apart, "gitseal-edit"), "edit"), "true");
        for tenancy in [Tenancy::SINGLE_OWNER, Tenancy::default()] {
            let other = bound(tenancy, "--default-service-account=default");
            assert_eq!(label(&role(&other, "gitseal-edit"), "edit"), "false");
        }
        for name in ["gitseal-view", "gitseal-edit"] {
            for rule in role(&tenants, name)["rules"].as_array().unwrap() {
                let writes_status =
                    rule["resources"].to_string().contains("/status") && rule["verbs"] != json!(["get"]);
                assert!(!writes_status && !rule.to_string().contains('*'), "{rule}");
            }
        }
    }

    #[test]
    fn arguments_are_what_was_chosen() {
        let awkward = ["--my-cn=a: b", "--privatekey-labels=a=1,b=2", "--listen-addr=:8080", "{x}", "1", ""];
        let arguments: Vec<String> = awkward.map(str::to_owned).into();
        let objects = objects(&Choices { arguments, ..default() });
        let container = &find(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["args"], json!(awkward));
    }

    #[test]
    fn a_volume_of_one_s_own_stays() {
        let source = json!({"hostPath": {"path": "/data", "type": ""}});
        let objects = objects(&Choices { storage: Storage::Other(source), ..default() });
        let volume = &find(&objects, "Deployment")["spec"]["template"]["spec"]["volumes"][0];
        assert_eq!(volume, &json!({"name": "storage", "hostPath": {"path": "/data", "type": ""}}));
        assert!(objects.iter().all(|object| object["kind"] != "PersistentVolumeClaim"));
    }

    #[test]
    fn ephemeral_storage_needs_no_volume() {
        let objects = objects(&Choices { storage: Storage::Ephemeral, ..default() });
        assert!(objects.iter().all(|object| object["kind"] != "PersistentVolumeClaim"));
        let volume = &find(&objects, "Deployment")["spec"]["template"]["spec"]["volumes"][0];
        assert_eq!(volume, &json!({"name": "storage", "emptyDir": {"sizeLimit": "2Gi"}}));
    }

    #[test]
    fn several_replicas_share_no_volume_and_are_not_taken_away_at_once() {
        let one = objects(&default());
        assert_eq!(find(&one, "Deployment")["spec"]["strategy"], json!({"type": "Recreate"}));
        assert!(one.iter().all(|object| object["kind"] != "PodDisruptionBudget"));
        let rollout = Rollout::Rolling;
        let three = objects(&Choices { replicas: 3, storage: Storage::Ephemeral, rollout, ..default() });
        let spec = &find(&three, "Deployment")["spec"];
        assert_eq!((&spec["replicas"], &spec["strategy"]), (&json!(3), &json!({"type": "RollingUpdate"})));
        assert!(spec["template"]["spec"]["volumes"][0]["emptyDir"].is_object());
        assert!(three.iter().all(|object| object["kind"] != "PersistentVolumeClaim"));
        let budget = &find(&three, "PodDisruptionBudget")["spec"];
        assert_eq!(budget["selector"], spec["selector"]);
    }

    #[test]
    fn the_role_covers_the_lease() {
        let objects = objects(&default());
        let rules: Vec<&Value> = objects
            .iter()
            .filter(|object| object["kind"] == "Role")
            .flat_map(|role| role["rules"].as_array().unwrap())
            .filter(|rule| rule["apiGroups"][0] == "coordination.k8s.io")
            .collect();
        let verbs: Vec<&str> =
            rules.iter().flat_map(|rule| rule["verbs"].as_array().unwrap()).filter_map(Value::as_str).collect();
        assert_eq!(verbs, ["create", "get", "list", "watch", "update", "patch"]);
        assert_eq!(rules[1]["resourceNames"], json!(["gitseal-controller"]));
        let env = &find(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["env"];
        assert!(env.as_array().unwrap().iter().any(|variable| variable["name"] == "POD_NAME"), "{env}");
    }

    #[test]
    fn the_deployment_meets_the_restricted_pod_security_standard() {
        let objects = objects(&default());
        let pod = &find(&objects, "Deployment")["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        for container in pod["containers"].as_array().unwrap() {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert_eq!(context["readOnlyRootFilesystem"], true);
            assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
        }
    }

    #[test]
    fn references_between_the_manifests_resolve() {
        let objects = objects(&default());
        let pod = &find(&objects, "Deployment")["spec"]["template"];
        assert_eq!(pod["metadata"]["labels"], find(&objects, "Service")["spec"]["selector"]);
        assert_eq!(pod["spec"]["serviceAccountName"], find(&objects, "ServiceAccount")["metadata"]["name"]);
        let claim = &pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"];
        assert_eq!(claim, &find(&objects, "PersistentVolumeClaim")["metadata"]["name"]);
        assert_eq!(find(&objects, "Deployment")["metadata"]["name"], DEPLOYMENT_NAME);
        assert_eq!(find(&objects, "Service")["spec"]["ports"][0]["name"], "http");
        assert_eq!(find(&objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"], pod["metadata"]["labels"]);
        let labels = pod["metadata"]["labels"].as_object().unwrap();
        for label in POD_LABELS.split(',') {
            let (name, value) = label.split_once('=').unwrap();
            assert_eq!(labels[name], value);
        }
    }

    #[test]
    fn the_probes_have_a_port_that_no_pod_may_reach() {
        let objects = objects(&default());
        let container = &find(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0];
        for probe in ["livenessProbe", "readinessProbe"] {
            assert_eq!(container[probe]["httpGet"]["port"], "probes", "{probe}");
        }
        let ports = |list: &Value, field: &str| -> Vec<String> {
            list.as_array().unwrap().iter().map(|port| port[field].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(ports(&container["ports"], "name"), ["http", "metrics", "probes"]);
        assert!(container["args"].as_array().unwrap().contains(&json!("--listen-probes-addr=:8082")));
        let rules = &find(&objects, "NetworkPolicy")["spec"]["ingress"];
        assert_eq!(ports(&rules[0]["ports"], "port"), ["http", "metrics"]);
        assert_eq!(rules.as_array().unwrap().len(), 1);
        let service = &find(&objects, "Service")["spec"]["ports"];
        assert!(!ports(service, "name").contains(&"probes".to_owned()));
    }
}
