#!/bin/bash
# Kafka's own script of this name, for one version and the variables that the chart sets.
options=(-XX:+UseSerialGC ${KAFKA_HEAP_OPTS:--Xmx256m} ${KAFKA_LOG4J_OPTS:-} "-Dkafka.logs.dir=${LOG_DIR:-/tmp}")
exec java "${options[@]}" -cp "/opt/kafka/libs/*" "$@"
