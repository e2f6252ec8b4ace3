// The page of `report`: one HTML file that needs nothing else.
#pragma once

#include <string>
#include <vector>

#include "report/run_data.h"

namespace qn {

/// `made`: when, for people.
std::string report_page(const std::vector<RunData>& runs, const std::string& made);

/// Tables of the page, in page_tables.cpp.
std::string figures_table(const std::vector<RunData>& runs);
std::string stages_table(const std::vector<RunData>& runs);
std::string bytes_table(const std::vector<RunData>& runs);
std::string kmeans_tables(const std::vector<RunData>& runs);
std::string events_table(const std::vector<RunData>& runs);
std::string differences_table(const std::vector<RunData>& runs);

}  // namespace qn
