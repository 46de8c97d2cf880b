"""Which model is best at the same exam, and what that costs.

entrants     the exams that take part, and what their models need
groups       exams that asked the same rows in the same way
claims       which model is better than which, beyond noise
standings    one group: scores, who beats whom, and what costs less
page         the leaderboard as Markdown
document     the document leaderboard.json
leaderboard  page, document and plot, written
card         what of it may be published
"""
