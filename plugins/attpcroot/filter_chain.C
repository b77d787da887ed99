// SPDX-License-Identifier: GPL-3.0-or-later
//
// An ATTPCROOT chain that goes on with the wanted events only: reads a run that was filtered, keeps
// the entries with the wanted tags, copies them whole, and finds their hits. Run it within
// ATTPCROOT:
//
//    root -l -b -q 'filter_chain.C("run_0042.root", "run_0042_tags.root", "protons.root", {"proton"})'

#include "AttpcFilterTags.h"

// of FairRoot and ATTPCROOT
#include "AtCopyTreeTask.h"
#include "AtDataReductionTask.h"
#include "AtPSAMax.h"
#include "AtPSAtask.h"
#include "FairFileSource.h"
#include "FairParAsciiFileIo.h"
#include "FairRootFileSink.h"
#include "FairRootManager.h"
#include "FairRunAna.h"
#include "FairRuntimeDb.h"

#include <TString.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

void filter_chain(TString input, std::string friends, TString output, std::vector<std::string> wanted,
                  TString parameters = "ATTPC.e12014.par")
{
   auto run = new FairRunAna();
   run->SetSource(new FairFileSource(input));
   run->SetSink(new FairRootFileSink(output));
   auto parameterFile = new FairParAsciiFileIo();
   parameterFile->open(TString(getenv("VMCWORKDIR")) + "/parameters/" + parameters, "in");
   run->GetRuntimeDb()->setFirstInput(parameterFile);
   run->GetRuntimeDb()->getContainer("AtDigiPar");

   // ATTPCROOT wants this one first: it gives the output the branches of the input
   run->AddTask(new AtCopyTreeTask());

   // entries with other tags: AtRawEvent is marked not good, and the output is not filled
   AttpcFilterTags tags(friends);
   auto reduce = new AtDataReductionTask();
   reduce->SetInputBranch("AtRawEvent");
   reduce->SetReductionFunction(tags.Keep(wanted, [] { return FairRootManager::Instance()->GetEntryNr(); }));
   run->AddTask(reduce);

   // the tasks that follow run for every entry all the same: ATTPCROOT's own ask the event whether
   // it is good, and so must yours
   auto psa = std::make_unique<AtPSAMax>();
   psa->SetThreshold(45);
   auto hits = new AtPSAtask(std::move(psa));
   hits->SetInputBranch("AtRawEvent");
   hits->SetOutputBranch("AtEventH");
   hits->SetPersistence(true);
   run->AddTask(hits);

   run->Init();
   run->Run(0, tags.GetEntries());
}
