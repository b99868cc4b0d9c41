// What `sluice bench` says at the end: one JSON object for programs, one table for people. Pure.
#pragma once

#include <string>

#include "gateway/bench/cpu_meter.h"
#include "gateway/bench/load_client.h"

namespace sluice::bench {

struct ReportLabels {  // what was asked for
  std::string url;
  std::string endpoint;
};

// Rates are 0 where their denominator is (no server pids given, an empty window).
std::string report_json(const ReportLabels& labels, const LoadPlan& plan, const LoadResult& result,
                        const CpuMeter& server_cpu);
std::string report_table(const LoadPlan& plan, const LoadResult& result,
                         const CpuMeter& server_cpu);

}  // namespace sluice::bench
