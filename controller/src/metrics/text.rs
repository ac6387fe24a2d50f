//! Converts the text format of OpenMetrics to that of Prometheus, version 0.0.4.
//!
//! Format: <https://prometheus.io/docs/instrumenting/exposition_formats/>. The two formats differ in the names of
//! counters in comments, in the bounds of buckets, and in the last line.

/// Converts the text `openmetrics` to the format of Prometheus.
pub(super) fn from_openmetrics(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
        } else if let Some((name, type_)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let suffix = if type_ == "counter" { "_total" } else { "" };
            if let Some((_, help)) = help.take().filter(|(described, _)| *described == name) {
                text.push_str(&format!("# HELP {name}{suffix} {help}\n"));
            }
            text.push_str(&format!("# TYPE {name}{suffix} {type_}\n"));
        } else if !line.starts_with('#') {
            push_sample(&mut text, line);
        }
    }
    text
}

/// Adds a sample. The bound of a bucket is written as Go prints numbers: `1`, not `1.0`.
fn push_sample(text: &mut String, line: &str) {
    match line.split_once("le=\"").and_then(|(head, rest)| Some((head, rest.split_once('"')?))) {
        Some((head, (bound, tail))) if head.ends_with(['{', ',']) => {
            let bound = bound.strip_suffix(".0").unwrap_or(bound);
            text.push_str(&format!("{head}le=\"{bound}\"{tail}\n"));
        }
        _ => {
            text.push_str(line);
            text.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_buckets_are_spelled_as_by_go() {
        let openmetrics = "# HELP a_b What.\n# TYPE a_b counter\na_b_total{x=\"le=\\\"1.0\"} 1\n# HELP c Size.\n\
                           # TYPE c histogram\n# UNIT c seconds\nc_sum 1.5\nc_bucket{le=\"1.0\"} 2\n\
                           c_bucket{path=\"/\",le=\"2.5\"} 2\nc_bucket{le=\"+Inf\"} 2\n# EOF\n";
        let text = "# HELP a_b_total What.\n# TYPE a_b_total counter\na_b_total{x=\"le=\\\"1.0\"} 1\n# HELP c Size.\n\
                    # TYPE c histogram\nc_sum 1.5\nc_bucket{le=\"1\"} 2\nc_bucket{path=\"/\",le=\"2.5\"} 2\n\
                    c_bucket{le=\"+Inf\"} 2\n";
        assert_eq!(from_openmetrics(openmetrics), text);
    }
}
