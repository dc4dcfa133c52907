use crate::charts::escape;
use crate::html::put;

/// The content of the HTML page of a sweep.
#[derive(Clone, Copy, Debug)]
pub struct SweepPage<'a> {
    /// The name of the score.
    pub metric: &'a str,
    /// Names of the columns; the one called `score` is also shown as a bar.
    pub header: &'a [&'a str],
    /// One row per candidate, the best first.
    pub rows: &'a [Vec<String>],
}

impl SweepPage<'_> {
    /// Renders one page without scripts or external resources, for light and dark screens and for print.
    pub fn to_html(&self) -> String {
        let style = include_str!("page.css");
        let mut page = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
        page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
        put(&mut page, format_args!("<title>Kiln sweep</title>\n<style>\n{style}</style>\n</head>\n<body>\n"));
        let count = self.rows.len();
        put(&mut page, format_args!("<h1>sweep over {count} candidates</h1>\n"));
        let metric = escape(&self.metric.replace('_', " "));
        put(
            &mut page,
            format_args!("<p>The score is the mean {metric} of a candidate's runs on the validation split.</p>\n"),
        );
        page.push_str("<div class=\"scroll\"><table><tr>");
        for name in self.header {
            put(&mut page, format_args!("<th>{}</th>", escape(&name.replace('_', " "))));
        }
        page.push_str("</tr>\n");
        for row in self.rows {
            page.push_str("<tr>");
            for (name, cell) in self.header.iter().zip(row) {
                let share = cell.parse::<f64>().ok().filter(|share| *name == "score" && (0.0..=1.0).contains(share));
                match share {
                    Some(share) => {
                        put(&mut page, format_args!("<td class=\"bar\" style=\"--share:{share:.2}\">{cell}</td>"))
                    }
                    None => put(&mut page, format_args!("<td>{}</td>", escape(cell))),
                }
            }
            page.push_str("</tr>\n");
        }
        page.push_str("</table></div>\n</body>\n</html>\n");
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_candidate_is_a_row_and_its_score_a_bar() {
        let rows = [["1", "a = \"<b>\"", "0.9000"], ["2", "", ""]].map(|row| row.map(str::to_owned).to_vec());
        let page = SweepPage { metric: "macro_f1", header: &["rank", "settings", "score"], rows: &rows }.to_html();
        assert!(
            page.contains("mean macro f1")
                && page.contains("a = &quot;&lt;b&gt;&quot;")
                && page.contains("--share:0.90")
        );
        assert_eq!((page.matches("<tr>").count(), page.matches("class=\"bar\"").count()), (3, 1));
    }
}
