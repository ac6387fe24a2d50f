//! The manifests of `deploy/`, with the few things that an installation may choose.
//!
//! They are changed as text, line by line, so that what is printed keeps the comments; tests hold the lines that are
//! looked for and the manifests together.

use anyhow::Context;
use manifests::{Limits, parse};
use serde_json::{Value, json};

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

/// Name of the controller's Deployment.
pub const DEPLOYMENT_NAME: &str = "gitseal-controller";
/// Name of the ClusterRoleBinding that an installation for several teams does without.
pub const CLUSTER_ADMIN_BINDING: &str = "gitseal-controller-cluster-admin";
/// The namespace that the manifests name.
const NAMESPACE: &str = "kube-system";
/// The Service that the manifests name.
const SERVICE_NAME: &str = "sealed-secrets-controller";

/// What an installation may choose.
pub struct Bundle<'a> {
    pub namespace: &'a str,
    /// Name of the Service.
    pub service: &'a str,
    pub image: Option<&'a str>,
    pub multi_tenant: bool,
    pub ephemeral_storage: bool,
    /// Number of controllers; several have no volume, which belongs to one at a time.
    pub replicas: u8,
}

impl Bundle<'_> {
    /// YAML texts in the order in which they are applied; each may hold several documents and ends with a newline.
    pub fn documents(&self) -> Vec<String> {
        let mut texts: Vec<String> = crds::custom_resource_definitions().iter().map(crds::to_yaml).collect();
        if self.namespace != NAMESPACE {
            texts.push(self.namespace_manifest());
        }
        let permissions = if self.multi_tenant { MULTI_TENANT } else { CLUSTER_ADMIN };
        let storage = (!self.is_ephemeral()).then_some(STORAGE);
        let budget = (self.replicas > 1).then_some(DISRUPTION_BUDGET);
        let first = [SERVICE_ACCOUNT, RBAC, permissions, USERS, SERVICE, NETWORK_POLICY].into_iter();
        let files = first.chain(storage).chain(budget).chain([DEPLOYMENT]);
        texts.extend(files.map(|text| self.fill_in(text)));
        texts
    }

    fn is_ephemeral(&self) -> bool {
        self.ephemeral_storage || self.replicas > 1
    }

    fn namespace_manifest(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {}\n  labels:\n    \
             pod-security.kubernetes.io/enforce: restricted\n",
            self.namespace
        )
    }

    fn fill_in(&self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let content = line.trim_start();
            let indent = &line[..line.len() - content.len()];
            let replaced = match self.image {
                _ if content == "namespace: kube-system" => {
                    format!("namespace: {}", self.namespace)
                }
                Some(image) if content.starts_with("image: ") => format!("image: {image}"),
                _ if content == "persistentVolumeClaim:" && self.is_ephemeral() => {
                    let _claim_name = lines.next();
                    format!("emptyDir:\n{indent}  sizeLimit: 2Gi")
                }
                _ if content.contains(SERVICE_NAME) && !content.starts_with('#') => {
                    content.replace(SERVICE_NAME, self.service)
                }
                _ if content == "replicas: 1" => format!("replicas: {}", self.replicas),
                _ if content == "type: Recreate" && self.replicas > 1 => "type: RollingUpdate".to_owned(),
                // Elsewhere whoever may create a Sync has the controller's own rights.
                _ if content.starts_with("# rbac.authorization.k8s.io/aggregate-to-edit") && self.multi_tenant => {
                    content.trim_start_matches("# ").to_owned()
                }
                // Nobody's manifests are written with the controller's own rights, which reach every Secret.
                _ if content.starts_with("- --storage=") && self.multi_tenant => {
                    format!("{content}\n{indent}- --default-service-account=default")
                }
                _ => content.to_owned(),
            };
            filled.push_str(indent);
            filled.push_str(&replaced);
            filled.push('\n');
        }
        filled
    }
}

/// The documents of `text` as a Kubernetes List.
pub fn list(text: &str) -> anyhow::Result<Value> {
    let objects = parse("gitseal install", text.as_bytes(), &Limits::default()).context("cannot read what was made")?;
    let items: Vec<Value> = objects.into_iter().map(|object| Value::Object(object.body)).collect();
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Bundle<'_> = Bundle {
        namespace: NAMESPACE,
        service: SERVICE_NAME,
        image: None,
        multi_tenant: false,
        ephemeral_storage: false,
        replicas: 1,
    };

    fn objects(bundle: &Bundle<'_>) -> Vec<Value> {
        list(&bundle.documents().join("---\n")).unwrap()["items"].as_array().unwrap().clone()
    }

    fn find<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
        objects.iter().find(|object| object["kind"] == kind).unwrap()
    }

    #[test]
    fn every_file_of_the_folder_is_installed() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/manifests");
        let all = DEFAULT.documents().concat();
        for file in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            assert!(all.contains(&text), "not installed: {}", text.lines().next().unwrap());
        }
    }

    #[test]
    fn another_namespace_is_used_everywhere() {
        let objects = objects(&Bundle { namespace: "gitops", ..DEFAULT });
        assert_eq!(find(&objects, "Namespace")["metadata"]["name"], "gitops");
        assert_eq!(find(&objects, "ClusterRoleBinding")["subjects"][0]["namespace"], "gitops");
        for object in &objects {
            let text = object.to_string();
            assert!(!text.contains("\"kube-system\""), "{text}");
        }
    }

    #[test]
    fn another_service_is_named_everywhere() {
        let objects = objects(&Bundle { service: "sealed-secrets", ..DEFAULT });
        assert_eq!(find(&objects, "Service")["metadata"]["name"], "sealed-secrets");
        let proxied = ["http:sealed-secrets:", "http:sealed-secrets:http", "sealed-secrets"];
        assert!(objects.iter().any(|object| object["rules"][1]["resourceNames"] == json!(proxied)));
        assert!(objects.iter().all(|object| !object.to_string().contains(SERVICE_NAME)));
    }

    #[test]
    fn the_image_is_the_given_one() {
        let image = |bundle: &Bundle<'_>| {
            find(&objects(bundle), "Deployment")["spec"]["template"]["spec"]["containers"][0]["image"].clone()
        };
        assert_eq!(image(&DEFAULT), concat!("gitseal-controller:", env!("CARGO_PKG_VERSION")));
        assert_eq!(
            image(&Bundle { image: Some("registry.example/gitseal:1"), ..DEFAULT }),
            "registry.example/gitseal:1"
        );
    }

    #[test]
    fn several_teams_get_no_cluster_admin() {
        let bindings = |bundle: &Bundle<'_>| {
            objects(bundle).iter().filter(|object| object["roleRef"]["name"] == "cluster-admin").count()
        };
        let tenants = Bundle { multi_tenant: true, ..DEFAULT };
        let arguments = |bundle: &Bundle<'_>| {
            find(&objects(bundle), "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"].to_string()
        };
        assert!(!arguments(&DEFAULT).contains("--default-service-account"));
        assert!(arguments(&tenants).contains("\"--default-service-account=default\""));
        assert_eq!(bindings(&DEFAULT), 1);
        assert!(objects(&DEFAULT).iter().any(|object| object["metadata"]["name"] == CLUSTER_ADMIN_BINDING));
        assert_eq!(bindings(&tenants), 0);
    }

    #[test]
    fn people_get_no_status_and_edit_no_syncs_of_the_only_owner() {
        let role = |bundle: &Bundle<'_>, name: &str| {
            objects(bundle).into_iter().find(|object| object["metadata"]["name"] == name).unwrap()
        };
        let label = |role: &Value, of: &str| {
            role["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{of}")].clone()
        };
        let tenants = Bundle { multi_tenant: true, ..DEFAULT };
        assert_eq!(label(&role(&DEFAULT, "gitseal-view"), "view"), "true");
        assert_eq!(label(&role(&DEFAULT, "gitseal-edit"), "edit"), Value::Null);
        assert_eq!(label(&role(&tenants, "gitseal-edit"), "edit"), "true");
        for name in ["gitseal-view", "gitseal-edit"] {
            for rule in role(&tenants, name)["rules"].as_array().unwrap() {
                let writes_status =
                    rule["resources"].to_string().contains("/status") && rule["verbs"] != json!(["get"]);
                assert!(!writes_status && !rule.to_string().contains('*'), "{rule}");
            }
        }
    }

    #[test]
    fn ephemeral_storage_needs_no_volume() {
        let objects = objects(&Bundle { ephemeral_storage: true, ..DEFAULT });
        assert!(objects.iter().all(|object| object["kind"] != "PersistentVolumeClaim"));
        let volume = &find(&objects, "Deployment")["spec"]["template"]["spec"]["volumes"][0];
        assert_eq!(volume, &json!({"name": "storage", "emptyDir": {"sizeLimit": "2Gi"}}));
    }

    #[test]
    fn several_replicas_share_no_volume_and_are_not_taken_away_at_once() {
        let one = objects(&DEFAULT);
        assert_eq!(find(&one, "Deployment")["spec"]["strategy"], json!({"type": "Recreate"}));
        assert!(one.iter().all(|object| object["kind"] != "PodDisruptionBudget"));
        let three = objects(&Bundle { replicas: 3, ..DEFAULT });
        let spec = &find(&three, "Deployment")["spec"];
        assert_eq!((&spec["replicas"], &spec["strategy"]), (&json!(3), &json!({"type": "RollingUpdate"})));
        assert!(spec["template"]["spec"]["volumes"][0]["emptyDir"].is_object());
        assert!(three.iter().all(|object| object["kind"] != "PersistentVolumeClaim"));
        let budget = &find(&three, "PodDisruptionBudget")["spec"];
        assert_eq!(budget["selector"], spec["selector"]);
    }

    #[test]
    fn the_role_covers_the_lease() {
        let objects = objects(&DEFAULT);
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
        let objects = objects(&DEFAULT);
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
        let objects = objects(&DEFAULT);
        let pod = &find(&objects, "Deployment")["spec"]["template"];
        assert_eq!(pod["metadata"]["labels"], find(&objects, "Service")["spec"]["selector"]);
        assert_eq!(pod["spec"]["serviceAccountName"], find(&objects, "ServiceAccount")["metadata"]["name"]);
        let claim = &pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"];
        assert_eq!(claim, &find(&objects, "PersistentVolumeClaim")["metadata"]["name"]);
        assert_eq!(find(&objects, "Deployment")["metadata"]["name"], DEPLOYMENT_NAME);
        assert_eq!(find(&objects, "Service")["spec"]["ports"][0]["name"], "http");
        assert_eq!(find(&objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"], pod["metadata"]["labels"]);
    }

    #[test]
    fn the_probes_have_a_port_that_no_pod_may_reach() {
        let objects = objects(&DEFAULT);
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
