use crate::charts::reliability;
use crate::html::put;
use crate::{CalibrationReport, CalibrationScores};

/// Writes the reliability diagrams and scores before and after calibration, and the coverage at minimum scores.
pub(crate) fn calibration_section(page: &mut String, calibration: &CalibrationReport) {
    let CalibrationReport { before, temperature, after, coverage } = calibration;
    let before_title = if after.is_some() { "Reliability before calibration" } else { "Reliability" };
    let after_chart = after.as_ref().and_then(|after| reliability("Reliability after calibration", &after.reliability));
    let charts: String = reliability(before_title, &before.reliability).into_iter().chain(after_chart).collect();
    if charts.is_empty() {
        return;
    }
    put(page, format_args!("<h3>calibration</h3>\n<div class=\"charts\">\n{charts}</div>\n"));
    match temperature {
        Some(temperature) => put(
            page,
            format_args!(
                "<p>Logits are divided by {temperature:.4}, the best value on the validation split; no predicted label changes. \
                 The loss above is that before calibration.</p>\n"
            ),
        ),
        None => page.push_str(
            "<p>No temperature improves the probabilities on the validation split, so they are unchanged.</p>\n",
        ),
    }
    page.push_str(
        "<div class=\"scroll\"><table><tr><th>probabilities</th><th>calibration error</th><th>Brier score</th><th>negative log-likelihood</th></tr>\n",
    );
    for (name, scores) in [("before", Some(before)), ("after", after.as_ref())] {
        let Some(CalibrationScores { calibration_error, brier_score, negative_log_likelihood, .. }) = scores else {
            continue;
        };
        put(page, format_args!("<tr><td>{name}</td><td>{calibration_error:.4}</td><td>{brier_score:.4}</td>"));
        put(page, format_args!("<td>{negative_log_likelihood:.4}</td></tr>\n"));
    }
    page.push_str(
        "</table></div>\n<table><tr><th>minimum score</th><th>answered</th><th>accuracy of the answers</th></tr>\n",
    );
    for row in coverage {
        let accuracy = row.accuracy.map_or_else(|| "–".to_owned(), |accuracy| format!("{accuracy:.4}"));
        let (min_score, share) = (row.min_score, row.coverage * 100.0);
        put(page, format_args!("<tr><td>{min_score:.2}</td><td>{share:.1} %</td><td>{accuracy}</td></tr>\n"));
    }
    page.push_str("</table>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_diagrams_and_both_tables_are_there() {
        let section = |temperature| {
            let mut page = String::new();
            let report = CalibrationReport::new(&[0.0, 2.0].repeat(4), 2, &[1, 1, 0, 1], temperature);
            calibration_section(&mut page, &report);
            page
        };
        let page = section(Some(2.0));
        assert_eq!((page.matches("<svg").count(), page.matches("<tr>").count()), (2, 3 + 9));
        assert!(page.contains("divided by 2.0000") && page.contains("<td>0.80</td><td>0.0 %</td><td>–</td>"), "{page}");
        let page = section(None);
        assert_eq!((page.matches("<svg").count(), page.matches("<tr>").count()), (1, 2 + 9));
        let mut empty = String::new();
        calibration_section(&mut empty, &CalibrationReport::new(&[], 2, &[], None));
        assert_eq!(empty, "");
    }
}
