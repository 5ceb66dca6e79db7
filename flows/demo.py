"""Flow ``demo``: everything on a small generated data set, from video files to submissions."""

import time
from datetime import UTC, datetime

from data_contracts.challenge.layout import find_data
from data_contracts.details.heads import HeadDetails
from data_contracts.files.local import check_output_folder
from data_contracts.vocabulary import TASKS
from flows.engine.console import print_line
from flows.engine.run import Run
from flows.extract import extract_features, find_backbone
from flows.fit import fit_heads, print_fitted
from flows.options import takes
from flows.parameters import DemoParameters, ExtractParameters, FitParameters, SubmitParameters
from flows.submit import print_submissions, write_submissions
from tasks.demo.generate import DemoDataParams, generate_demo_data
from tasks.pages.write_report import REPORT_OF_STORE, write_report


@takes(DemoParameters)
def demo(parameters: DemoParameters) -> str:
    """Generate a data set, extract, fit a head for each task, write and verify the four submissions."""
    started = time.monotonic()
    out, data = parameters.out, parameters.out / "data"
    check_output_folder(out)
    summary = generate_demo_data(data, params=DemoDataParams(), seed=parameters.seed)
    print_line(
        f"data set: {data} ({time.monotonic() - started:.0f} s); one file is corrupt on purpose: "
        f"{summary.corrupt_file.name}"
    )
    store = str(out / "store")
    with Run(store, workers=parameters.workers) as run:
        request = ExtractParameters(data, store)
        extract_features(run, request, find_backbone(request))
        fitted = fit_heads(run, [FitParameters(task, store, data) for task in TASKS])
        layout = find_data(data)
        heads = {HeadDetails.of(f.head).task: f.head.name for f in fitted if f.head}
        requests = [
            SubmitParameters(task, store, layout.test_list_of(task), heads[task]) for task in TASKS if task in heads
        ]
        bundles = write_submissions(run, requests)
        run.print_summary()
        print_fitted(run, fitted)
        print_submissions(run, bundles)
        report = write_report(run.store, name=REPORT_OF_STORE, written=datetime.now(UTC))
        print_line(f"report: {run.store.locate(report)}")
        print_line(f"finished in {time.monotonic() - started:.0f} s; store: {run.store.url}", is_result=True)
        unexpected = [f for f in (*run.failures, *run.problems) if summary.corrupt_file.stem not in f[1]]
        if unexpected:
            run.raise_for_failures()
    return str(out)
