"""What must hold of whatever the chart renders: a function for each rule, which yields what breaks it."""
