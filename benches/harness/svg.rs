//! One picture a workload: a bar for each contender, its spread, and its ratios.

use std::fmt::Write as _;

use serde_json::Value;

struct Bar {
    who: String,
    value: f64,
    low: f64,
    high: f64,
    remark: String,
}

fn bars(workload: &Value) -> Vec<Bar> {
    let timed = |row: &Value| {
        let wall = &row["wall"];
        let ratio = |key: &str, name: &str| row[key]["wall"].as_f64().map(|ratio| format!("{ratio:.2} of {name}"));
        let who = row["contender"].as_str()?.to_owned();
        let ratios = [
            ratio("to_crun", "crun").filter(|_| who != "crun"),
            ratio("to_floor", "the floor").filter(|_| who != "floor"),
        ];
        let remark = ratios.into_iter().flatten().collect::<Vec<_>>().join(", ");
        Some(Bar {
            who,
            value: wall["median"].as_f64()?,
            low: wall["p25"].as_f64()?,
            high: wall["p75"].as_f64()?,
            remark,
        })
    };
    let figure = |row: &Value| {
        let value = &row["value"];
        let number = value["value"].as_f64()?;
        let (low, high) = (value["low"].as_f64().unwrap_or(number), value["high"].as_f64().unwrap_or(number));
        Some(Bar { who: row["contender"].as_str()?.to_owned(), value: number, low, high, remark: String::new() })
    };
    let rows = |key: &str| workload[key].as_array().cloned().unwrap_or_default();
    rows("results").iter().filter_map(timed).chain(rows("figures").iter().filter_map(figure)).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

pub fn chart(workload: &Value) -> String {
    const LEFT: f64 = 70.0;
    const WIDTH: f64 = 420.0;
    const ROW: f64 = 30.0;
    let bars = bars(workload);
    let most = bars.iter().map(|bar| bar.high.max(bar.value)).fold(f64::MIN_POSITIVE, f64::max);
    let height = 50.0 + ROW * bars.len() as f64;
    let unit = workload["unit"].as_str().unwrap_or("");
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"760\" height=\"{height}\" fill=\"white\"/>\n<text x=\"10\" y=\"24\" font-weight=\"bold\">{}</text>\n",
        escape(workload["title"].as_str().unwrap_or(""))
    );
    for (index, bar) in bars.iter().enumerate() {
        let top = 38.0 + ROW * index as f64;
        let scale = |value: f64| LEFT + value / most * WIDTH;
        let (fill, middle) = (if bar.who == "tare" { "#2a6fbb" } else { "#b8c4d0" }, top + 10.0);
        let shown =
            if unit == "us" { format!("{:.2} ms", bar.value / 1000.0) } else { format!("{:.0} {unit}", bar.value) };
        let remark = if bar.remark.is_empty() { shown } else { format!("{shown}  ({})", bar.remark) };
        let _ = write!(
            out,
            "<text x=\"10\" y=\"{:.1}\">{}</text>\n<rect x=\"{LEFT}\" y=\"{top}\" width=\"{:.1}\" height=\"20\" fill=\"{fill}\"/>\n\
             <path d=\"M{:.1} {middle}H{:.1}M{:.1} {}v8M{:.1} {}v8\" stroke=\"black\"/>\n<text x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
            top + 15.0,
            escape(&bar.who),
            scale(bar.value) - LEFT,
            scale(bar.low),
            scale(bar.high),
            scale(bar.low),
            middle - 4.0,
            scale(bar.high),
            middle - 4.0,
            scale(bar.high.max(bar.value)) + 8.0,
            top + 15.0,
            escape(&remark)
        );
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_longest_bar_has_the_whole_width_and_failures_none() {
        let wall = |value: u64| json!({ "median": value, "p25": value, "p75": value });
        let workload = json!({ "title": "a < b", "unit": "us", "results": [
            { "contender": "tare", "wall": wall(1000), "to_crun": { "wall": 0.25 } },
            { "contender": "crun", "wall": wall(4000) },
            { "contender": "runc", "error": "no" },
        ] });
        let chart = chart(&workload);
        assert!(chart.contains("a &lt; b") && chart.contains("0.25 of crun"), "{chart}");
        assert!(chart.contains("width=\"420.0\"") && chart.contains("width=\"105.0\""), "{chart}");
        assert!(!chart.contains("runc"), "{chart}");
    }
}
