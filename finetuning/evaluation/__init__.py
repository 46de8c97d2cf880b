"""The exam of base and tuned model, and the verdict.

exam               both models answer the same rows
generation         greedy answers to many prompts at once
decoding           how the next token is chosen
roomy_cache        what is kept of the tokens so far, with room for more
metrics            scores of answers
references         whether any answer could be right
comparison         base and tuned answers beside each other
with_passages      what passages did for the answers
intervals          how sure a gain is
python_tests       the metric that runs the code in an answer
confined_python    runs code that nobody has read
bent_tests         code that would keep any asserts
benchmark_tasks    public benchmarks, as lm-eval has them
benchmark_scores   both models on those
judging_model      a model on this machine that compares answers
judged             what a judge found, and how far it is to be trusted
verdict            whether the tuned model may be published
rewarded           whether the exam rose with what was rewarded
tables             its figures in words
evaluation_report  the report as Markdown and JSON
merged_parts       what pages say of an adapter that others were merged into
report             the document report.json
side_by_side       two exams beside each other
"""
