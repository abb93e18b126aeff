// Energies and forces of an exported potential in C++; docs/python.md has the commands that export it and compile
// this file.
//
//     ./energies aoti.pt2 4 < configurations.txt
//
// The second argument is N. Each configuration is the edge of the cube and then 3 N coordinates, in bohr, separated by
// blanks or line ends. A line of the output is E in Ha of the whole cell and then the 3 N components of the forces in
// Ha/bohr, if the potential was exported with forces.
#include <ATen/ATen.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <cstdlib>
#include <iomanip>
#include <iostream>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: energies PROGRAM.pt2 N < CONFIGURATIONS\n";
    return 2;
  }
  const long num_atoms = std::atol(argv[2]);
  std::vector<double> lengths, positions;
  for (double length; std::cin >> length;) {
    lengths.push_back(length);
    for (long i = 0; i < 3 * num_atoms; ++i) {
      double coordinate;
      if (!(std::cin >> coordinate)) {
        std::cerr << "configuration " << lengths.size() << " is not complete\n";
        return 2;
      }
      positions.push_back(coordinate);
    }
  }
  const long count = lengths.size();
  const auto z = at::from_blob(positions.data(), {count, num_atoms, 3}, at::kDouble);
  const auto length = at::from_blob(lengths.data(), {count}, at::kDouble);
  torch::inductor::AOTIModelPackageLoader potential(argv[1]);
  const auto found = potential.run({z, length});  // the energies, and the forces if there are any
  std::cout << std::setprecision(15);
  for (long i = 0; i < count; ++i) {
    std::cout << found[0][i].item<double>();
    if (found.size() > 1) {
      const at::Tensor forces = found[1][i].contiguous();
      for (long k = 0; k < 3 * num_atoms; ++k) std::cout << " " << forces.data_ptr<double>()[k];
    }
    std::cout << "\n";
  }
}
