//! The report: a table for people, JSON for programs, a picture of each workload.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::svg;

pub fn write(report: &Value, out: &Path) -> Result<(), String> {
    let text = |error: std::io::Error| format!("{out:?}: {error}");
    fs::create_dir_all(out).map_err(text)?;
    let table = table(report);
    print!("{table}");
    fs::write(out.join("results.json"), format!("{report:#}\n")).map_err(text)?;
    fs::write(out.join("results.md"), table).map_err(text)?;
    for workload in list(&report["workloads"]) {
        let name = workload["name"].as_str().unwrap_or("workload");
        fs::write(out.join(format!("{name}.svg")), svg::chart(workload)).map_err(text)?;
    }
    println!("results.json, results.md and a picture of each workload are in {}", out.display());
    Ok(())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Milliseconds, of microseconds.
fn ms(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".into(), |micros| format!("{:.2}", micros / 1000.0))
}

fn ratio(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"))
}

pub fn table(report: &Value) -> String {
    let mut out = String::new();
    let host = &report["host"];
    let word = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let _ = writeln!(
        out,
        "Linux {}, {} cores, {}, load {} before and {} after\n",
        word(&host["kernel"]),
        host["cores"],
        word(&host["cpu"]),
        word(&host["load_before"]),
        word(&host["load_after"])
    );
    for who in list(&report["contenders"]) {
        let _ = writeln!(out, "- {}: {}, {} bytes", word(&who["name"]), word(&who["version"]), who["bytes"]);
    }
    let _ = writeln!(out, "\nMilliseconds: median (quartiles). Ratios: medians of pairs.\n");
    let _ = writeln!(
        out,
        "| workload | who | wall | CPU | page faults | wall / crun | CPU / crun | wall / floor | CPU / floor |\n|---|---|---|---|---|---|---|---|---|"
    );
    for workload in list(&report["workloads"]).iter().filter(|it| it["results"].is_array()) {
        for row in list(&workload["results"]) {
            let _ = write!(out, "| {} | {} |", word(&workload["title"]), word(&row["contender"]));
            if let Some(error) = row["error"].as_str() {
                let _ = writeln!(out, " failed: {} |||||||", error.replace('|', "/"));
                continue;
            }
            let wall = &row["wall"];
            let _ = writeln!(
                out,
                " {} ({}-{}) | {} | {} | {} | {} | {} | {} |",
                ms(&wall["median"]),
                ms(&wall["p25"]),
                ms(&wall["p75"]),
                ms(&row["cpu"]["median"]),
                row["faults"]["median"].as_f64().unwrap_or(0.0),
                ratio(&row["to_crun"]["wall"]),
                ratio(&row["to_crun"]["cpu"]),
                ratio(&row["to_floor"]["wall"]),
                ratio(&row["to_floor"]["cpu"])
            );
        }
    }
    let _ = writeln!(out, "\n| figure | who | value | |\n|---|---|---|---|");
    for workload in list(&report["workloads"]).iter().filter(|it| it["figures"].is_array()) {
        for row in list(&workload["figures"]) {
            let value = &row["value"];
            let _ = write!(out, "| {} | {} |", word(&workload["title"]), word(&row["contender"]));
            if let Some(error) = value["error"].as_str() {
                let _ = writeln!(out, " {} | |", error.replace(['|', '\n'], "/"));
                continue;
            }
            let unit = workload["unit"].as_str().unwrap_or("");
            let number = value["value"].as_f64().unwrap_or(0.0);
            let shown = if unit == "us" { format!("{:.2} ms", number / 1000.0) } else { format!("{number:.0} {unit}") };
            let _ = writeln!(out, " {shown} | {} |", remark(value));
        }
    }
    out
}

/// What else a figure has.
fn remark(value: &Value) -> String {
    let mut parts = Vec::new();
    if value["p99_us"].is_number() {
        parts.push(format!("p50 {} ms, p99 {} ms", ms(&value["p50_us"]), ms(&value["p99_us"])));
    }
    if value["by_process"].is_array() {
        let calls: Vec<String> = list(&value["by_process"]).iter().map(Value::to_string).collect();
        parts.push(format!(
            "by process {}; {} clones, {} execs, {} threads",
            calls.join(" + "),
            value["clones"],
            value["execs"],
            value["threads"]
        ));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_failed_is_said() {
        let report = json!({ "host": {}, "contenders": [], "workloads": [
            { "title": "run", "results": [{ "contender": "crun", "error": "a | b" }] },
            { "title": "calls", "unit": "calls", "figures": [{ "contender": "tare", "value": { "value": 12 } }] },
        ] });
        let table = table(&report);
        assert!(table.contains("| run | crun | failed: a / b |"), "{table}");
        assert!(table.contains("| calls | tare | 12 calls |"), "{table}");
    }
}
