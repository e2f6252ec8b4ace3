// The MPI implementation, behind the factory in communicator.cpp. mpi.h stays in the .cpp file.
#pragma once

#include <memory>

#include "comm/communicator.h"

namespace qn {

/// Whether a launcher that speaks to MPI (mpirun, srun with PMIx or PMI) started this process.
bool started_by_mpi_launcher();

/// Initialises MPI. Throws qn::Error when MPI was already started or sees fewer ranks than the launcher started.
std::unique_ptr<Communicator> make_mpi_communicator();

}  // namespace qn
