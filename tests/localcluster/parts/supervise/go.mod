module localcluster/supervise

go 1.26.0
